from typing import Sequence

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


def check_same_counts(counts: Sequence[int], val_dataset) -> None:
    """Check that a validation set states the training set's counts.

    Raises:
        UserError: If it states others.
    """
    stated = getattr(val_dataset, 'metainfo', {}).get('class_counts', counts)
    for label, (count, other) in enumerate(zip(counts, stated)):
        if count != other:
            raise UserError(
                f'class {label} has {count} training images, but '
                f'val_dataloader.dataset states {other}: give it the '
                'imb_factor, or class_counts, of train_dataloader.dataset')


@HOOKS.register_module()
class ClassCountsHook(Hook):
    """Gives the training set's class counts to the losses of the head.

    Losses are built before data sets are, so they learn the counts here,
    once, before training.
    """

    def before_train(self, runner: Runner) -> None:
        """Hand over the counts.

        Raises:
            UserError: If they do not fit ``model.head.num_classes``, the
                head has no use for them, or the validation set, whose
                metrics group the classes by them, states others.
        """
        head = unwrapped(runner).head
        if not hasattr(head, 'set_class_counts'):
            raise UserError('ClassCountsHook gives class counts to a '
                            f'RIDEHead, found model.head.type='
                            f'"{type(head).__name__}"')
        counts = get_class_counts(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            check_same_counts(counts, runner.val_dataloader.dataset)
        head.set_class_counts(counts)
