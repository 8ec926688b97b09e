"""Sets of labels that hold the true one with a stated probability.

Split conformal prediction (Vovk et al., "Algorithmic Learning in a Random
World", 2005) with the probability of a label as its score (Sadinle et al.,
"Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", JASA 2019),
and a threshold for each group of classes.
"""

import numpy as np

from ride_mm.datasets.class_groups import ClassGroups, key_prefix
from ride_mm.utils.errors import UserError


def set_thresholds(
    scores: np.ndarray, labels: np.ndarray, groups: ClassGroups, coverage: float
) -> np.ndarray:
    """Find the smallest probability of a label in the set of an image.

    A new image of a class of the group gets a set with its label with a
    probability of at least ``coverage``, if it is exchangeable with those
    given, whatever the shares of the groups.

    Args:
        scores (np.ndarray): Probabilities of N images that were neither
            trained nor tested on, (N, K).
        labels (np.ndarray): Their labels, (N, ).
        groups (ClassGroups): The groups of the K classes.
        coverage (float): The probability, above 0 and below 1.

    Returns:
        np.ndarray: The threshold of each class, (K, ).

    Raises:
        UserError: If the coverage is out of range, or a group has too few
            images for it.
    """
    if not 0 < coverage < 1:
        raise UserError(f'coverage={coverage:g} must be above 0 and below 1')
    own = scores[np.arange(len(labels)), labels]
    found = np.zeros(len(groups))
    for name, classes in groups.masks.items():
        values = np.sort(own[classes[labels]])
        # Of the scores of these and a new image, this many may be missed.
        missed = int((1 - coverage) * (len(values) + 1) + 1e-9)
        if missed == 0:
            enough = int(np.ceil(coverage / (1 - coverage) - 1e-9))
            raise UserError(
                f'{len(values)} images of {name}-shot classes are too few for sets that hold the '
                f'label with a probability of {coverage:g}: at least {enough} are needed'
            )
        found[classes] = values[missed - 1]
    return found


def sets_of(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The labels in the set of each image.

    Args:
        scores (np.ndarray): Probabilities, (N, K).
        thresholds (np.ndarray): Those of :func:`set_thresholds`, (K, ).

    Returns:
        np.ndarray: Whether each label is in the set, (N, K). The best label
        always is.
    """
    sets = scores >= thresholds
    sets[np.arange(len(sets)), scores.argmax(1)] = True
    return sets


def set_figures(
    scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray, groups: ClassGroups
) -> dict[str, float]:
    """Compute how often the sets hold the label, and their size.

    Args:
        scores (np.ndarray): Probabilities of N images, (N, K).
        labels (np.ndarray): Their labels, (N, ).
        thresholds (np.ndarray): Those of :func:`set_thresholds`, (K, ).
        groups (ClassGroups): The groups of the K classes.

    Returns:
        dict[str, float]: 'coverage' in percent and 'size', the mean number of
        labels, of all images and, as 'many_coverage' and so on, of each group.
    """
    sets = sets_of(scores, thresholds)
    held, sizes = sets[np.arange(len(labels)), labels], sets.sum(1)
    figures = {}
    for name, images in groups.of_images(labels).items():
        figures[f'{key_prefix(name)}coverage'] = 100.0 * float(held[images].mean())
        figures[f'{key_prefix(name)}size'] = float(sizes[images].mean())
    return figures
