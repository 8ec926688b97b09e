from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.models.classifiers.state_check import keep_own_classifiers
from .class_counts_hook import unwrapped


@HOOKS.register_module()
class NewClassifiersHook(Hook):
    """Keeps the classifiers of a loaded checkpoint out: they begin anew.

    For stage "classifier" as classifier re-training (cRT: Kang et al.,
    "Decoupling Representation and Classifier for Long-Tailed Recognition",
    ICLR 2020). The new classifiers may be of another type.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the model's own classifiers into what is loaded, unless a run
        is resumed."""
        if not runner._resume:
            keep_own_classifiers(
                checkpoint.get('state_dict', checkpoint), unwrapped(runner))
