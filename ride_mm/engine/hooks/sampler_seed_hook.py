from mmengine.dist import get_dist_info
from mmengine.hooks import DistSamplerSeedHook as _DistSamplerSeedHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from ride_mm.datasets.augmentation_seeds import seed_draws, seed_everything


@HOOKS.register_module()
class DistSamplerSeedHook(_DistSamplerSeedHook):
    """Seeds samplers and augmentations by the epoch.

    Replaces mmengine's hook of the same name, a default hook of every run, so
    that augmentations depend only on (seed, epoch, draw): see
    :mod:`ride_mm.datasets.augmentation_seeds`.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the draws of this epoch."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            draws = seed_draws(runner.train_loop.dataloader, runner.seed)
            draws.epoch = runner.epoch
            # Dropout and the like; 1000003 keeps epochs and ranks apart.
            rank, _ = get_dist_info()
            seed_everything((runner.seed + 1000003 * runner.epoch + rank) % 2**32)
        super().before_train_epoch(runner)
