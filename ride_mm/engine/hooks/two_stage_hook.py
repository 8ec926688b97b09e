import copy
import inspect

from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS, OPTIM_WRAPPERS
from torch.utils.data import DataLoader, Dataset

from ride_mm.utils.errors import UserError

from ..averaging import check_averaging, finish_averaging
from ..buffers import synchronize_buffers
from .class_counts_hook import unwrapped

STAGE_KEY = 'ride_stage'


def merge_wrappers(stage_1: dict, stage_2: dict) -> dict:
    """Complete the optimizer config of stage 2 by the options of stage 1 that it
    does not set and that its wrapper accepts."""
    merged = dict(stage_2)
    kind = merged.setdefault('type', stage_1.get('type', 'OptimWrapper'))
    kind = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    known = {
        name
        for base in kind.__mro__
        if '__init__' in vars(base)
        for name in inspect.signature(base.__init__).parameters
    }
    for key, value in stage_1.items():
        if key in known:
            merged.setdefault(key, value)
    return copy.deepcopy(merged)


@HOOKS.register_module()
class TwoStageHook(Hook):
    """Trains the experts and, from epoch ``begin`` on, the router.

    The stage is stored in the checkpoint: a resumed run continues in its
    stage, and the checkpoint of the last epoch of stage 1 starts stage 2.

    Args:
        begin (int): First epoch of stage 2, counted from 0, which is the number
            of epochs of stage 1. Stage 2 lasts until ``train_cfg.max_epochs``.
        optim_wrapper (dict): Config of stage 2's optimizer. Options of the
            wrapper that it does not set are as in stage 1: ``type``, so that
            ``--amp`` applies to both, ``accumulative_counts``, ``clip_grad``,
            AMP's ``dtype`` and ``loss_scale``. The optimizer, ``constructor``
            and ``paramwise_cfg`` are not inherited.
        param_scheduler (list[dict] | dict): Config of stage 2's schedule;
            its epochs count from the beginning of stage 2.
        train_dataloader (dict, optional): Changes to stage 1's
            ``train_dataloader``, such as sampler and batch size. Defaults to
            None.
        auto_scale_lr (dict, optional): Stage 2's ``base_batch_size``; enabled
            together with stage 1's. Defaults to None.

    Raises:
        UserError: If the run is not epoch-based, or there is no stage 2.
    """

    # Before the sampler's seed is set and before hooks that count iterations.
    priority = 'HIGH'

    def __init__(
        self,
        begin: int,
        optim_wrapper: dict,
        param_scheduler: dict | list[dict],
        train_dataloader: dict | None = None,
        auto_scale_lr: dict | None = None,
    ) -> None:
        self.begin = begin
        self.optim_wrapper = optim_wrapper
        self.param_scheduler = param_scheduler
        self.train_dataloader = train_dataloader or {}
        self.auto_scale_lr = auto_scale_lr

    def before_run(self, runner: Runner) -> None:
        """Refuse runs that this hook cannot switch."""
        if not isinstance(runner, Runner):
            raise UserError(
                "TwoStageHook needs mmengine's Runner, found "
                f'runner_type="{type(runner).__name__}"'
            )
        # ``runner.train_loop`` would build one even for a test.
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop):
            return
        if not isinstance(loop, EpochBasedTrainLoop):
            raise UserError('TwoStageHook needs train_cfg=dict(by_epoch=True)')
        if self.begin not in range(1, loop.max_epochs):
            raise UserError(
                f'TwoStageHook.begin={self.begin!r} must be a whole number '
                f'between 0 and train_cfg.max_epochs={loop.max_epochs}, the '
                'epochs of stage 1 and of both stages'
            )
        model = unwrapped(runner)
        if getattr(getattr(model, 'head', None), 'router', None) is None:
            raise UserError(
                'TwoStageHook trains a router, but model.head.router is None: '
                'set default_hooks.two_stage=None'
            )
        # a test may follow a training
        if model.stage != 'experts' and not loop.iter:
            raise UserError(
                f'TwoStageHook starts with model.stage="experts", found model.stage={model.stage!r}'
            )
        check_averaging(runner, self.begin)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the stage."""
        checkpoint['meta'][STAGE_KEY] = unwrapped(runner).stage

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Resume in the stored stage, before the optimizer is loaded."""
        stored = checkpoint.get('meta', {}).get(STAGE_KEY)
        if runner._resume and stored == 'router':
            self._switch(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Switch to stage 2 after stage 1."""
        if runner.epoch >= self.begin and unwrapped(runner).stage == 'experts':
            self._switch(runner)
            # ``Runner.train`` does this after a resume.
            runner.optim_wrapper.initialize_count_status(
                runner.model, runner.iter, runner.max_iters
            )

    def build_dataloader(self, runner: Runner, dataset: Dataset | None = None) -> DataLoader:
        """Build the data loader of stage 2.

        It shares ``dataset``, the dataset of stage 1, if the config has no other
        for stage 2.
        """
        cfg = copy.deepcopy(dict(runner.cfg.train_dataloader))
        cfg.update(copy.deepcopy(dict(self.train_dataloader)))
        if (
            dataset is not None
            and 'dataset' not in self.train_dataloader
            and 'num_batch_per_epoch' not in cfg
        ):
            cfg['dataset'] = dataset
        return runner.build_dataloader(
            cfg,
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
        )

    def learning_rate(self, runner: Runner, loader: DataLoader) -> float:
        """Compute the learning rate of stage 2, with this loader, before any schedule."""
        return self.optim_wrapper['optimizer']['lr'] * self._rate_factor(runner, loader)

    def _rate_factor(self, runner: Runner, loader: DataLoader) -> float:
        """Factor of ``auto_scale_lr``."""
        if not ((runner.auto_scale_lr or {}).get('enable') and self.auto_scale_lr):
            return 1.0
        return runner.world_size * loader.batch_size / self.auto_scale_lr['base_batch_size']

    def _switch(self, runner: Runner) -> None:
        """Set up stage 2, in order of dependence."""
        runner.logger.info(
            f'Stage 2: the router is trained in epochs {self.begin + 1} to '
            f'{runner.max_epochs}; everything else is frozen.'
        )
        synchronize_buffers(runner)
        finish_averaging(runner)
        unwrapped(runner).set_stage('router')
        if is_model_wrapper(runner.model):
            # A wrapper synchronizes only the parameters that were trainable when
            # it was built; the others would silently diverge between ranks.
            wrapper_cfg = copy.deepcopy(runner.cfg.get('model_wrapper_cfg'))
            runner.model = runner.wrap_model(wrapper_cfg, runner.model.module)

        loop, old = runner.train_loop, runner.train_loop.dataloader
        old._iterator = None  # ends its workers
        loop.dataloader = self.build_dataloader(runner)
        steps = (loop.max_epochs - self.begin) * len(loop.dataloader)
        loop._max_iters = self.begin * len(old) + steps
        runner.message_hub.update_info('max_iters', loop.max_iters)

        runner.optim_wrapper = runner.build_optim_wrapper(
            merge_wrappers(runner.cfg.optim_wrapper, self.optim_wrapper)
        )
        for group in runner.optim_wrapper.param_groups:
            group['lr'] *= self._rate_factor(runner, loop.dataloader)
        runner.param_schedulers = runner.build_param_scheduler(copy.deepcopy(self.param_scheduler))

        # The losses of stage 1 would still be averaged and logged.
        scalars: dict = runner.message_hub.log_scalars
        for key in [key for key in scalars if key.startswith('train/') and 'loss' in key]:
            del scalars[key]
        self._reset_best(runner)

    @staticmethod
    def _reset_best(runner: Runner) -> None:
        """Track the best checkpoint of stage 2 separately; keep stage 1's."""
        for key in list(runner.message_hub.runtime_info):
            if key.startswith(('best_score', 'best_ckpt')):
                runner.message_hub.pop_info(key)
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.save_best:
                if len(hook.key_indicators) == 1:
                    hook.best_ckpt_path = None
                else:
                    hook.best_ckpt_path_dict = dict.fromkeys(hook.key_indicators)
