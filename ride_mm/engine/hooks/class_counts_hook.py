from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.datasets.class_counts import get_class_counts


def unwrapped(runner: Runner):
    """The model without its distributed wrapper."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


@HOOKS.register_module()
class ClassCountsHook(Hook):
    """Gives the training set's class counts to the losses of the head.

    Losses are built before data sets are, so they learn the counts here,
    once, before training.
    """

    def before_train(self, runner: Runner) -> None:
        """Hand over the counts.

        Raises:
            UserError: If they do not fit ``model.head.num_classes``.
        """
        counts = get_class_counts(runner.train_dataloader.dataset)
        unwrapped(runner).head.set_class_counts(counts)
