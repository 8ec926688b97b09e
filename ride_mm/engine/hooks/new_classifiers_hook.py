from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.models.classifiers.state_check import HEAD, keep_own

from .class_counts_hook import unwrapped


@HOOKS.register_module()
class NewClassifiersHook(Hook):
    """Skips the head of a loaded checkpoint: classifiers start from scratch.

    For fine-tuning on other classes, and for stage "classifier" as classifier
    re-training (cRT: Kang et al., "Decoupling Representation and Classifier
    for Long-Tailed Recognition", ICLR 2020). The new classifiers may be of
    another type. The router and a fitted temperature, which depend on the old
    logits, are skipped too.
    """

    # Before EMAHook copies the loaded weights.
    priority = 'ABOVE_NORMAL'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace the loaded head by the model's own, unless a run is
        resumed."""
        if runner._resume:
            return
        keep_own(HEAD, checkpoint.get('state_dict', checkpoint), unwrapped(runner))
        # Weights before averaging are only used to resume.
        checkpoint.pop('ema_state_dict', None)
