from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from .class_counts_hook import unwrapped


@HOOKS.register_module()
class DeferredReweightingHook(Hook):
    """Weights classes by their effective number from an epoch on (DRW).

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware
    Margin Loss", NeurIPS 2019. Follows from the epoch alone, so a resumed
    run weights as an uninterrupted one does.

    Args:
        begin (int): First re-weighted epoch, counted from 0, which is the
            number of epochs before it.
        beta (float): See ``effective_number_weights``. Defaults to 0.9999.
    """

    def __init__(self, begin: int, beta: float = 0.9999) -> None:
        self.begin = begin
        self.beta = beta

    def before_train_epoch(self, runner: Runner) -> None:
        """Switch the weights on or off."""
        enabled = runner.epoch >= self.begin
        unwrapped(runner).head.set_reweighting(self.beta if enabled else None)
        if runner.epoch == self.begin:
            runner.logger.info('Classes are re-weighted from this epoch on.')
