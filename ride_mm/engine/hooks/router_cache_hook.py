import itertools
from collections.abc import Iterator

import mmengine.dist as dist
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmpretrain.registry import HOOKS
from torch.utils.data import DataLoader, Dataset

from ride_mm.datasets.augmentation_seeds import seed_draws
from ride_mm.datasets.samplers import ReshuffledSampler
from ride_mm.models.heads import RouterInputs
from ride_mm.structures import gather_labels
from ride_mm.utils.errors import UserError

from .class_counts_hook import unwrapped


class RouterInputsDataset(Dataset):
    """Router inputs in memory, returned batch by batch.

    Args:
        inputs (RouterInputs): Router inputs of the N images.
        metainfo (dict): Metainfo of the image dataset, for checkpoints.
    """

    def __init__(self, inputs: RouterInputs, metainfo: dict) -> None:
        self.inputs = inputs
        self.metainfo = metainfo

    def __len__(self) -> int:
        return len(self.inputs.targets)

    def __getitems__(self, indices: list[int]) -> dict:
        rows = torch.tensor(indices, device=self.inputs.targets.device)
        return dict(inputs=RouterInputs(*(column[rows] for column in self.inputs)))


def first_batches(runner: Runner, number: int) -> Iterator[dict]:
    """The first batches of epoch 0 on the model's device, with a progress bar.

    Always of epoch 0, so that a resumed run has the same ones.

    Args:
        runner (Runner): The runner, before a training epoch.
        number (int): Number of batches per process.
    """
    loader = runner.train_loop.dataloader
    seed_draws(loader, runner.seed).epoch = 0
    loader.sampler.set_epoch(0)
    model = unwrapped(runner)
    progress = ProgressBar(number) if dist.is_main_process() else None
    for batch in itertools.islice(loader, number):
        yield model.data_preprocessor(batch, training=True)
        if progress:
            progress.update()
    loader._iterator = None  # ends its workers


@HOOKS.register_module()
class RouterCacheHook(Hook):
    """Runs the frozen experts only once in stage "router".

    Before the first epoch of that stage, the router inputs of some images of
    an epoch, augmented as configured, are computed and cached on the model's
    device. The epochs then iterate over the cache, reshuffled each time, for
    as many steps as without this hook. Works in a run of both stages and in
    one of only the router.

    Args:
        share (float): Share of the images of an epoch to cache. Defaults to 0.5.

    Raises:
        UserError: If ``share`` is not in (0, 1].
    """

    # After TwoStageHook, before the sampler's seed is set.
    priority = 'ABOVE_NORMAL'

    def __init__(self, share: float = 0.5) -> None:
        if not 0 < share <= 1:
            raise UserError(f'RouterCacheHook.share={share} must be above 0 and at most 1')
        self.share = share
        self._filled = False

    def before_train_epoch(self, runner: Runner) -> None:
        """Replace the images by the cache."""
        loader = runner.train_loop.dataloader
        if unwrapped(runner).stage != 'router' or self._filled:
            return
        self._filled = True
        dataset = RouterInputsDataset(self._compute(runner), loader.dataset.metainfo)
        # As many steps as before, with the same batch size.
        epoch_size = len(loader.sampler) * dist.get_world_size()
        runner.train_loop.dataloader = DataLoader(
            dataset,
            batch_size=loader.batch_size,
            sampler=ReshuffledSampler(dataset, epoch_size, runner.seed),
            drop_last=loader.drop_last,
            collate_fn=lambda batch: batch,
        )

    def _compute(self, runner: Runner) -> RouterInputs:
        """Compute the router inputs of the first images of an epoch."""
        loader = runner.train_loop.dataloader
        num_batches = max(1, round(self.share * len(loader)))
        runner.logger.info(
            'Computing and caching the router inputs of '
            f'{num_batches * loader.batch_size} images per process.'
        )
        model = unwrapped(runner)
        # The loop does this only later; frozen experts stay in eval mode.
        model.train()
        found = []
        for batch in first_batches(runner, num_batches):
            with runner.optim_wrapper.optim_context(model):
                found.append(
                    model.router_inputs(batch['inputs'], gather_labels(batch['data_samples']))
                )
        return RouterInputs(
            *(torch.cat(dist.all_gather(torch.cat(column))) for column in zip(*found))
        )
