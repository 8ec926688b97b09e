"""Prepare a config for tools/train.py and tools/test.py, and run it."""

import argparse
import copy
import math
import os
import os.path as osp
import re
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.dist import master_only
from mmengine.hooks import LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ride_mm.utils.config_names import config_file
from ride_mm.utils.errors import UserError, nearest
from ride_mm.utils.files import write_file
from ride_mm.utils.lock import lock_work_dir
from ride_mm.utils.memory import keep_freed_memory
from ride_mm.utils.rank import end_with_launcher, is_main_process

from .config import add_cfg_options, find_hook, is_ride, load_config, type_name, warn
from .config_check import check_together
from .hooks.stop_signal_hook import saved_on_error
from .schedule_check import check_run
from .screen import ScreenHook, progress_bar

# Most steps between two lines of the log, unless the config says so.
_LOG_STEPS = 20
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Numbered and best checkpoints of CheckpointHook.
_CHECKPOINT = re.compile(r'((epoch|iter)_|best_.*_)\d+\.pth')


def common_arguments() -> argparse.ArgumentParser:
    """Make a parser of the arguments of both tools, as a parent of theirs."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--work-dir', metavar='DIR', help='output folder (default: work_dirs/<config name>)'
    )
    parser.add_argument('--amp', action='store_true', help='use mixed precision')
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='switch off pin_memory in the dataloaders'
    )
    add_cfg_options(
        parser,
        'override settings of the config, such as '
        'train_dataloader.batch_size=64 or key="[a,b]" (no white space)',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher (default: none)',
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='show on the screen all that goes to the log file: environment, config, hooks, and '
        'the tables of every validation',
    )
    # torch.distributed.launch passes it, torchrun sets LOCAL_RANK
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def load_test(args: argparse.Namespace) -> Config:
    """Read the config of a test.

    Args:
        args (Namespace): Those of :func:`common_arguments`, and ``checkpoint``.

    Returns:
        Config: The config, with ``load_from`` and work_dir set.

    Raises:
        UserError: If the config cannot be read, or there is no such checkpoint.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    set_work_dir(cfg, args.work_dir, args.config)
    cfg.resume, cfg.load_from = False, find_checkpoint(args.checkpoint)
    return cfg


def set_work_dir(cfg: Config, work_dir: str | None, config: str) -> None:
    """Set the work_dir from the argument, else the config, else its name."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', Path(config_file(config)).stem)


def set_dataloader_defaults(
    cfg: Config, pin_memory: bool | None = None, persistent_workers: bool | None = None
) -> None:
    """Complete the three dataloaders, as mmpretrain's tools do.

    Args:
        cfg (Config): The config, changed in place.
        pin_memory (bool, optional): Overrides the config. Defaults to None: as
            in the config, else whether there is a GPU.
        persistent_workers (bool, optional): Overrides the config. Defaults to
            None: as in the config, else True. Always False without workers.
    """
    given = dict(pin_memory=pin_memory, persistent_workers=persistent_workers)
    for loader in filter(None, map(cfg.get, _DATALOADERS)):
        loader.update({key: value for key, value in given.items() if value is not None})
        loader.setdefault('pin_memory', torch.cuda.is_available())
        loader.setdefault('persistent_workers', True)
        loader.setdefault('collate_fn', dict(type='default_collate'))
        if not loader.get('num_workers'):
            loader.persistent_workers = False


def enable_amp(cfg: Config) -> None:
    """Train with mixed precision (``--amp``).

    Raises:
        UserError: If the optim_wrapper has another type than OptimWrapper.
    """
    kind = type_name(cfg.optim_wrapper)
    if kind not in ('', 'OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            "--amp can only replace optim_wrapper.type='OptimWrapper', but the config has "
            f'{kind!r}.'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the batch size (``--auto-scale-lr``).

    Raises:
        UserError: If the config does not state the batch size of its rate.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config, the '
            'batch size that its learning rate is set for.'
        )
    cfg.auto_scale_lr.enable = True


def disable_validation(cfg: Config) -> None:
    """Do not evaluate during training (``--no-validate``)."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def find_checkpoints(folder: str | Path) -> list[Path]:
    """List the checkpoints that a training wrote to a folder, newest last."""
    paths = [path for path in Path(folder).glob('*.pth') if _CHECKPOINT.fullmatch(path.name)]
    return sorted(paths, key=lambda path: path.stat().st_mtime)


def is_used(work_dir: str | Path) -> bool:
    """Whether a work_dir holds checkpoints, or a pointer to one."""
    return bool(find_checkpoints(work_dir)) or Path(work_dir, 'last_checkpoint').exists()


def set_resume(cfg: Config, resume: str | None) -> None:
    """Resume a run, or make sure that no other run is overwritten.

    Args:
        cfg (Config): The config, changed in place; its work_dir is set.
        resume (str, optional): A checkpoint, ``'auto'`` for the newest one in
            the work_dir, or None for a new run. Without checkpoints, ``'auto'``
            also starts a new run, which keeps the config's ``load_from``.

    Raises:
        UserError: If the checkpoint does not exist, or a new run would write
            into a work_dir that holds checkpoints.
    """
    if resume == 'auto':
        cfg.resume = is_used(cfg.work_dir)
        if cfg.resume:
            cfg.load_from = None
        else:
            path = Path(cfg.work_dir).absolute()
            used = [other.name for other in path.parent.glob('*') if is_used(other)]
            warn(
                f'--resume finds no checkpoint in {cfg.work_dir}: a new run begins.'
                f'{nearest(path.name, used)}'
            )
    elif resume is not None:
        cfg.resume, cfg.load_from = True, resume
    elif is_main_process() and not cfg.get('resume') and is_used(cfg.work_dir):
        raise UserError(
            f'{cfg.work_dir} already holds the checkpoints of a run. Pass --resume to continue it, '
            'or --work-dir DIR for a new run.'
        )
    if cfg.get('load_from') is not None:
        check_checkpoint_path(cfg.load_from, '--resume ' if resume else 'load_from=')


def check_checkpoint_path(path: str, source: str = '') -> None:
    """Check that a local checkpoint exists; name the nearest one if not.

    Args:
        path (str): A path, or the URL of a remote file.
        source (str): Where the path was given, for the message. Defaults to ''.

    Raises:
        UserError: If a local path does not exist.
    """
    # with DeepSpeed a checkpoint is a folder
    if '://' in path or osp.exists(osp.expanduser(path)):
        return
    names = [other.name for other in find_checkpoints(Path(path).expanduser().parent)]
    raise UserError(
        f'{source}{path}: there is no such checkpoint.{nearest(Path(path).name, names)}'
    )


def find_checkpoint(path: str) -> str:
    """Find a checkpoint by its path, or that of the work_dir that holds it.

    Args:
        path (str): A checkpoint, or a work_dir, whose last checkpoint is meant.

    Returns:
        str: Path of the checkpoint.

    Raises:
        UserError: As :func:`check_checkpoint_path`.
    """
    last = Path(path, 'last_checkpoint')
    found = last.read_text().strip() if last.is_file() else path
    check_checkpoint_path(found)
    return found


def set_launcher(cfg: Config, launcher: str) -> None:
    """Set the job launcher; without a GPU, use gloo instead of NCCL.

    mmengine selects a CUDA device when it creates the process group, and passes
    it to the model wrapper. It keeps a group that exists already.

    Args:
        cfg (Config): The config, changed in place.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        UserError: If the processes were not started by the launcher, or there
            are more processes than GPUs.
    """
    cfg.launcher = launcher
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch needs torchrun: start with tools/dist_train.sh or '
            'tools/dist_test.sh.'
        )
    if launcher == 'none':
        return
    if launcher == 'pytorch':
        end_with_launcher()
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if int(os.environ.get('LOCAL_RANK', 0)) >= gpus:
            raise UserError(
                f'this machine has {gpus} GPUs, fewer than the processes started on it.'
            )
        return
    if launcher != 'pytorch':
        raise UserError(
            f'--launcher {launcher} needs GPUs, but this machine has none; --launcher pytorch '
            'works on the CPU.'
        )
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = wrapper | (cfg.get('model_wrapper_cfg') or {}) | dict(device_ids=None)
    dist.init_process_group('gloo')


def enable_all_experts(cfg: Config) -> None:
    """Run all experts, and keep the output of each expert and router
    (``--all-experts``).

    Raises:
        UserError: If the model has no experts.
    """
    if not is_ride(cfg):
        raise UserError(
            f'--all-experts needs model.type="RIDEClassifier", found "{type_name(cfg.model)}"'
        )
    cfg.model.test_cfg = dict(cfg.model.get('test_cfg') or {}, mode='ensemble', expert_logits=True)


def enable_tta(cfg: Config) -> None:
    """Average the scores over augmented images (``--tta``).

    The config's ``tta_model`` and ``tta_pipeline`` define the augmentation. The
    default is the image and its mirror image.
    """
    dataset = cfg.test_dataloader.dataset
    pipeline = cfg.get('tta_pipeline')
    if pipeline is None:
        pipeline = copy.deepcopy(dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])
    dataset.pipeline = pipeline
    tta_model = cfg.get('tta_model') or dict(type='AverageClsScoreTTA')
    cfg.model = ConfigDict(**tta_model, module=cfg.model)


def enable_visualization(cfg: Config, **settings) -> None:
    """Draw predictions (``--show`` and ``--show-dir``).

    Raises:
        UserError: If the config has no visualization hook.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError(
            "--show and --show-dir need default_hooks.visualization=dict(type='VisualizationHook') "
            'in the config.'
        )
    hook.update(enable=True, **settings)
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type='UniversalVisualizer')


def check_output_file(path: str, suffixes: tuple, option: str = '--out') -> None:
    """Check, before the work, that its results can be written.

    Args:
        path (str): The file.
        suffixes (tuple[str]): Allowed suffixes of its name.
        option (str): The option that names the file, for the message. Defaults
            to '--out'.

    Raises:
        UserError: If the file exists, has another suffix, or its folder cannot
            be created.
    """
    if not path.endswith(suffixes):
        raise UserError(f'{option} {path}: the file name must end in {" or ".join(suffixes)}.')
    if is_main_process() and osp.exists(path):
        raise UserError(
            f'{option} {path} exists and is not overwritten: choose another name or remove the '
            'file.'
        )
    try:
        os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    except OSError as error:
        raise UserError(f'{option} {path} cannot be written: {error.strerror}.') from error


class TestRunner(Runner):
    """Dumps the config of a test next to its log; the work_dir holds that of the
    training, which may differ."""

    __test__ = False  # not a test of pytest

    @master_only
    def dump_config(self) -> None:
        """Dump the config into the folder of the log."""
        name = osp.basename(self.cfg.filename or 'config.py')
        write_file(osp.join(self._log_dir, name), self.cfg.pretty_text)


def build_runner(cfg: Config, runner_class: type[Runner] = Runner, verbose: bool = False) -> Runner:
    """Build the runner of a config.

    Args:
        cfg (Config): The config.
        runner_class (type): The class if the config has no ``runner_type``.
            Defaults to Runner.
        verbose (bool): Whether the screen shows all that the log file has, see
            :class:`~ride_mm.engine.screen.ScreenHook`. Defaults to False.

    Returns:
        Runner: The runner.

    Raises:
        UserError: If a part is missing that others need.
    """
    check_together(cfg)
    if not torch.cuda.is_available():
        keep_freed_memory()
    kind = RUNNERS.get(cfg.runner_type) if 'runner_type' in cfg else runner_class
    return ScreenHook(verbose).build(kind, cfg)


def set_log_interval(runner: Runner) -> None:
    """Divide an epoch evenly among its lines in the log, at most 20 steps apart.

    With an interval that the number of steps is no multiple of, the last steps
    of every epoch are in no line. MMEngine logs shorter epochs at their end. An
    interval in the config is kept.

    Args:
        runner (Runner): The runner of a training.
    """
    if 'interval' in (find_hook(runner.cfg, 'LoggerHook') or {}):
        return
    loop = runner.train_loop
    steps = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook):
            hook.interval = max(steps, _LOG_STEPS) // math.ceil(steps / _LOG_STEPS)


def train(cfg: Config, verbose: bool = False) -> None:
    """Check the schedule of a config, and train.

    Args:
        cfg (Config): The config, to which a ``ScheduleHook`` is added if it has
            none.
        verbose (bool): See :func:`build_runner`. Defaults to False.

    Raises:
        UserError: If there is no training, a stage cannot be trained, or
            another process trains in the work_dir.
    """
    if cfg.get('train_cfg') is None:
        raise UserError('train_cfg is missing: the config has no training')
    if find_hook(cfg, 'ScheduleHook') is None:
        cfg.setdefault('default_hooks', {})
        cfg.default_hooks.schedule = dict(type='mmpretrain.ScheduleHook')
    if is_main_process():
        lock_work_dir(cfg.work_dir)
    runner = build_runner(cfg, verbose=verbose)
    if isinstance(runner, Runner):
        # before MMEngine builds schedulers for a stage without steps
        check_run(runner)
        set_log_interval(runner)
    with saved_on_error(runner), progress_bar(runner):
        runner.train()
