import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import BATCH_AUGMENTS

from ride_mm.models.batch_augments.remix import remix_shares
from ride_mm.utils.errors import UserError

COUNTS = [300, 100, 99, 1]


def build(**cfg):
    return BATCH_AUGMENTS.build(dict(cfg))


def draw(augment, n=8):
    """Images that tell their share of themselves, and their labels."""
    np.random.seed(0)
    torch.manual_seed(0)
    images = torch.eye(n).reshape(n, 1, 1, n)
    scores = F.one_hot(torch.arange(n) % 4, 4)
    return augment(images, scores)


@pytest.mark.parametrize(
    'lam, expected',
    [
        (0.3, [0.0, 0.0, 0.3, 0.3, 0.3, 0.3]),
        (0.5, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        (0.7, [0.7, 0.7, 1.0, 1.0, 0.7, 0.7]),
    ],
)
def test_remix_shares_by_hand(lam, expected):
    """The label of the smaller class wins where it is a third or less."""
    pairs = [(300, 100), (300, 1), (100, 300), (1, 300), (100, 99), (99, 100)]
    shares = remix_shares(*torch.tensor(pairs).T, lam)
    assert shares.tolist() == pytest.approx(expected)


def test_remix_mixes_images_as_mixup_does():
    images, scores = draw(build(type='Mixup', alpha=1.0))
    remixed, shares = draw(build(type='Remix', class_counts=COUNTS))
    torch.testing.assert_close(remixed, images)
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    assert not torch.equal(shares, scores)
    # As good as no class is 1000 times as large as another.
    _, equal = draw(build(type='Remix', class_counts=COUNTS, kappa=1e3))
    torch.testing.assert_close(equal, scores)


def test_remix_labels_the_mixture_by_the_smaller_class():
    images, shares = draw(build(type='Remix', class_counts=COUNTS, tau=1.0))
    for n, (image, share) in enumerate(zip(images.flatten(1), shares)):
        (other,) = set(image.nonzero().flatten().tolist()) - {n} or {n}
        own, partner = n % 4, other % 4
        if COUNTS[own] >= 3 * COUNTS[partner]:
            assert share[partner] == 1
        elif COUNTS[partner] >= 3 * COUNTS[own]:
            assert share[own] == 1
        elif own != partner:
            assert share[own] == image[n] and share[partner] == image[other]


def test_remix_mistakes():
    with pytest.raises(UserError, match='alpha=0 must be above 0'):
        build(type='Remix', alpha=0)
    with pytest.raises(UserError, match='ClassCountsHook'):
        draw(build(type='Remix'))
