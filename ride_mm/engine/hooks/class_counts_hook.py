from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.datasets.class_counts import get_class_counts
from ride_mm.utils.errors import UserError


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
            UserError: If they do not fit ``model.head.num_classes``, or the
                head has no use for them.
        """
        head = unwrapped(runner).head
        if not hasattr(head, 'set_class_counts'):
            raise UserError('ClassCountsHook gives class counts to a '
                            f'RIDEHead, found model.head.type='
                            f'"{type(head).__name__}"')
        head.set_class_counts(
            get_class_counts(runner.train_dataloader.dataset))
