from typing import Sequence

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.datasets.class_counts import get_class_counts, stated_counts
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
    """Gives the training set's class counts to the model.

    Models are built before data sets are, so their losses and batch
    augmentations learn the counts here, once, before training; a test
    learns them from what its data set says of the training set.
    """

    def before_train(self, runner: Runner) -> None:
        """Hand over the counts.

        Raises:
            UserError: If they do not fit ``model.head.num_classes``, the
                model has no use for them, or the validation set, whose
                metrics group the classes by them, states others.
        """
        model = unwrapped(runner)
        if not hasattr(model, 'set_class_counts'):
            raise UserError('ClassCountsHook gives class counts to a '
                            'RIDEClassifier, found model.type='
                            f'"{type(model).__name__}"')
        counts = get_class_counts(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            check_same_counts(counts, runner.val_dataloader.dataset)
        model.set_class_counts(counts)

    def before_test(self, runner: Runner) -> None:
        """Hand over what the test set says, for a model that adjusts its
        predictions by it.

        Raises:
            UserError: If the counts do not fit ``model.head.num_classes``.
        """
        model = unwrapped(runner)
        if getattr(model, 'adjusts_logits', False):
            counts = stated_counts(runner.test_dataloader.dataset)
            if counts is not None:
                model.set_class_counts(counts)
