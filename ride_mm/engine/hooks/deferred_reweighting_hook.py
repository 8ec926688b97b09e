from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from ride_mm.utils.errors import UserError

from .class_counts_hook import unwrapped


@HOOKS.register_module()
class DeferredReweightingHook(Hook):
    """Re-weights classes by their effective number from a given epoch (DRW).

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware
    Margin Loss", NeurIPS 2019. The weights depend only on the epoch, so a
    resumed run matches an uninterrupted one.

    Args:
        begin (int): First re-weighted epoch, counted from 0.
        beta (float): See ``models/losses/class_weights.py``. Defaults to
            0.9999.

    Raises:
        UserError: If the run is not epoch-based, or ``begin`` is not a number
            of epochs.
    """

    def __init__(self, begin: int, beta: float = 0.9999) -> None:
        self.begin = begin
        self.beta = beta

    def before_run(self, runner: Runner) -> None:
        """Refuse runs that are not epoch-based."""
        # ``runner.train_loop`` would build one even for a test.
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop):
            return
        if not isinstance(loop, EpochBasedTrainLoop):
            raise UserError(
                'DeferredReweightingHook.begin is an epoch, but '
                'this run is by iterations: it needs '
                'train_cfg=dict(by_epoch=True, max_epochs=...), '
                'or set default_hooks.reweighting=None'
            )
        if type(self.begin) is not int or self.begin < 0:
            raise UserError(
                f'DeferredReweightingHook.begin={self.begin!r} '
                'must be a whole number of epochs, at least 0'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Switch the weights on or off."""
        enabled = runner.epoch >= self.begin
        model = unwrapped(runner)
        model.head.set_reweighting(self.beta if enabled else None)
        # The loss of the router has no class weights.
        if runner.epoch == self.begin and model.stage != 'router':
            runner.logger.info('Classes are re-weighted from this epoch on.')
