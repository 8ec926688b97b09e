from collections.abc import Sequence

from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS
from torch import nn

from ride_mm.datasets.class_counts import get_class_counts, stated_counts
from ride_mm.models.utils import counting_augments
from ride_mm.structures import check_class_counts
from ride_mm.utils.errors import UserError


def unwrapped(runner: Runner):
    """Return the model without its distributed wrapper."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def _match_validation(runner: Runner, counts: Sequence[int]) -> None:
    """Check that the validation set, whose metrics group the classes by their
    training images, states the counts of the training set.

    If ``indices`` selects some of the training images and the validation set
    states the counts of all, the metrics get the counts of the selected ones.

    Raises:
        UserError: If the counts differ otherwise.
    """
    dataset = runner.train_dataloader.dataset
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    whole = getattr(dataset, 'whole_class_counts', None)
    stated = getattr(runner.val_dataloader.dataset, 'metainfo', {}).get('class_counts')
    if whole is not None and list(whole) == list(stated or []):
        runner.logger.warning(
            f'indices leaves {len(dataset)} of {sum(whole)} training images: '
            'losses, re-weighting and groups use these counts, but a later test '
            'uses those of the whole set.'
        )
        for metric in runner.val_loop.evaluator.metrics:
            metric.dataset_meta = dict(metric.dataset_meta, class_counts=counts)
        return
    for label, (count, other) in enumerate(zip(counts, stated or counts)):
        if count != other:
            raise UserError(
                f'class {label} has {count} training images, but '
                f'val_dataloader.dataset states {other}: give it the '
                'imb_factor, or class_counts, of train_dataloader.dataset'
            )


@HOOKS.register_module()
class ClassCountsHook(Hook):
    """Gives the training set's class counts to the model.

    Models are built before datasets, so their losses and batch augmentations
    get the counts here, once, before training; for a test they come from the
    metainfo of its dataset. A batch augmentation that ``SwitchRecipeHook``
    switches on later gets them then.
    """

    # Before EMAHook copies the model.
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._counts: Sequence[int] | None = None

    def before_run(self, runner: Runner) -> None:
        """Pass on the counts, unless there is no training."""
        if isinstance(runner._train_loop, BaseLoop):
            self.before_train(runner)

    def before_train(self, runner: Runner) -> None:
        """Pass on the counts.

        Raises:
            UserError: If the counts do not fit ``model.head.num_classes``, the
                model does not use them, or the validation set states others.
        """
        if self._counts is not None:
            return
        model = unwrapped(runner)
        parts = [model]  # a RIDEClassifier passes the counts on
        if not hasattr(model, 'set_class_counts'):
            parts = [part for part in model.modules() if hasattr(part, 'set_class_counts')]
            parts += counting_augments(model)
        if not parts:
            raise UserError(
                'ClassCountsHook gives class counts to a RIDEClassifier, or to '
                'losses and batch augmentations that take them, found model.type='
                f'"{type(model).__name__}" without any'
            )
        counts = get_class_counts(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            _match_validation(runner, counts)
        head = getattr(model, 'head', None)
        check_class_counts(counts, getattr(head, 'num_classes', len(counts)))
        for part in parts:
            part.set_class_counts(counts)
            if isinstance(part, nn.Module) and part is not model:
                part.to(get_device())
        self._counts = counts

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Pass the counts to augmentations that have been switched on since."""
        for augment in counting_augments(unwrapped(runner)):
            if augment.class_counts is None:
                augment.set_class_counts(self._counts)

    def before_test(self, runner: Runner) -> None:
        """Pass on the counts of the test set, for a model that adjusts its
        predictions by them.

        Raises:
            UserError: If the counts do not fit ``model.head.num_classes``.
        """
        model = unwrapped(runner)
        if getattr(model, 'adjusts_logits', False):
            counts = stated_counts(runner.test_dataloader.dataset)
            if counts is not None:
                model.set_class_counts(counts)
