"""What large and small classes are taken for."""

from dataclasses import dataclass

import numpy as np

from ride_mm.datasets.class_groups import ClassGroups, GroupsLike
from ride_mm.evaluation.by_group import validate_labels


@dataclass(frozen=True)
class GroupConfusion:
    """Where the images of each group of classes go.

    Attributes:
        share (dict[str, dict[str, float]]): Percent of the images of a group
            ('many', 'medium', 'few') that are taken for a class of each
            group, right ones included.
        right (dict[str, float]): Percent of a group's images that are right.
        to_larger (dict[str, float]): Percent of a group's errors that go to
            a class with more training images. A group without errors is
            left out.
        by_chance (dict[str, float]): What ``to_larger`` would be if errors
            were spread evenly over all other classes.
    """

    share: dict[str, dict[str, float]]
    right: dict[str, float]
    to_larger: dict[str, float]
    by_chance: dict[str, float]


def group_confusion(
    pred_label: np.ndarray, gt_label: np.ndarray, groups: GroupsLike
) -> GroupConfusion:
    """Compute how the groups of classes are confused with each other.

    Args:
        pred_label (np.ndarray): Predicted labels with shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).

    Returns:
        GroupConfusion: A group without images is left out, and as what
        images are taken for a group without classes.

    Raises:
        UserError: If a label is not a class.
    """
    groups = ClassGroups.of(groups)
    counts = groups.counts
    validate_labels(gt_label, len(counts), 'True label')
    validate_labels(pred_label, len(counts), 'Predicted label')
    classes, members = groups.masks, groups.of_images(gt_label)
    members.pop('overall', None)
    hits = pred_label == gt_label
    larger = counts[pred_label] > counts[gt_label]
    # Of the other classes, how many are larger than the true one.
    rank = np.searchsorted(np.sort(counts), counts, side='right')
    chance = (len(counts) - rank)[gt_label] / max(len(counts) - 1, 1)
    errors = {name: images & ~hits for name, images in members.items() if (images & ~hits).any()}
    return GroupConfusion(
        share={
            name: {other: _percent(mask[pred_label], images) for other, mask in classes.items()}
            for name, images in members.items()
        },
        right={name: _percent(hits, images) for name, images in members.items()},
        to_larger={name: _percent(larger, wrong) for name, wrong in errors.items()},
        by_chance={name: _percent(chance, wrong) for name, wrong in errors.items()},
    )


def _percent(values: np.ndarray, images: np.ndarray) -> float:
    return 100.0 * float(np.mean(values[images]))
