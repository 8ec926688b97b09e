"""The images that a model has most trouble with."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from PIL import Image
from scipy.special import softmax

from ride_mm.analysis.predictions import Predictions
from ride_mm.datasets.class_counts import get_labels
from ride_mm.datasets.class_groups import ClassGroups, GroupsLike
from ride_mm.evaluation import score_quality
from ride_mm.utils.errors import UserError

# Pixels: larger pictures are made smaller, as thumbnails.
_LARGEST = 192
# What is shown with more pixels than it has, each of them sharp.
_FEW_PIXELS = 96


@dataclass(frozen=True)
class Opinion:
    """What an expert says of an image.

    Attributes:
        label (int): The class it takes it for.
        confidence (float): Its probability.
        asked (bool): Whether the routed model asked it.
    """

    label: int
    confidence: float
    asked: bool


@dataclass(frozen=True)
class HardImage:
    """An image that the model has trouble with.

    Attributes:
        index (int): Its place in the test set.
        gt_label (int): Its class.
        pred_label (int): What it is taken for.
        confidence (float): With which probability.
        nll (float): Minus the log probability of its class, nats.
        opinions (list[Opinion]): What each expert says; none where this was
            not kept.
        used (int, optional): How many experts were asked. None if the model
            has none.
        picture (str, optional): Its picture as a data URI. None without one.
        pixelated (bool): Whether the picture has so few pixels that they are
            to be seen.
    """

    index: int
    gt_label: int
    pred_label: int
    confidence: float
    nll: float
    opinions: list[Opinion] = field(default_factory=list)
    used: int | None = None
    picture: str | None = None
    pixelated: bool = False

    @property
    def true_score(self) -> float:
        """float: The probability of its class."""
        return math.exp(-self.nll)


def hardest_images(
    predictions: Predictions, groups: GroupsLike, number: int, config: Config | None = None
) -> dict[str, list[HardImage]]:
    """Find the images whose true class has the least probability.

    Args:
        predictions (Predictions): Of N images, with scores.
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        number (int): How many, over all groups alike.
        config (Config, optional): Where the pictures are: of its
            ``test_dataloader.dataset``. Defaults to None, which means no
            pictures.

    Returns:
        dict[str, list[HardImage]]: By group, the hardest first; of equally
        hard ones the first ones of the test set.

    Raises:
        UserError: If the test images of the config are not those of the
            predictions, or cannot be read.
    """
    quality = score_quality(
        torch.from_numpy(predictions.pred_score), torch.from_numpy(predictions.gt_label)
    )
    groups = ClassGroups.of(groups).of_images(predictions.gt_label)
    groups.pop('overall')
    order = np.argsort(-quality.nll, kind='stable')
    chosen = {
        name: order[images[order]][: len(share)]
        for (name, images), share in zip(
            groups.items(), np.array_split(np.arange(number), len(groups))
        )
    }
    indices = np.concatenate(list(chosen.values()))
    pictures = {} if config is None else load_pictures(config, indices, predictions.gt_label)
    return {
        name: [
            _describe(
                predictions,
                int(i),
                float(quality.nll[i]),
                float(quality.confidence[i]),
                pictures.get(int(i)),
            )
            for i in of_group
        ]
        for name, of_group in chosen.items()
        if len(of_group)
    }


def _describe(
    predictions: Predictions, index: int, nll: float, confidence: float, picture: np.ndarray | None
) -> HardImage:
    used, opinions = None, []
    if predictions.num_experts_used is not None:
        used = int(predictions.num_experts_used[index])
    if predictions.expert_logits is not None:
        scores = softmax(predictions.expert_logits[:, index].astype(np.float64), axis=1)
        opinions = [
            Opinion(int(of_expert.argmax()), float(of_expert.max()), k < used)
            for k, of_expert in enumerate(scores)
        ]
    return HardImage(
        index,
        int(predictions.gt_label[index]),
        int(predictions.pred_label[index]),
        confidence,
        nll,
        opinions,
        used,
        picture=None if picture is None else data_uri(picture),
        pixelated=picture is not None and max(picture.shape) < _FEW_PIXELS,
    )


def load_pictures(
    config: Config, indices: Sequence[int], gt_label: np.ndarray
) -> dict[int, np.ndarray]:
    """Load test images as the model gets them, before normalization.

    Args:
        config (Config): With ``test_dataloader.dataset``.
        indices (Sequence[int]): Which ones.
        gt_label (np.ndarray): True labels of all test images, (N, ).

    Returns:
        dict[int, np.ndarray]: RGB, uint8, (H, W, 3) by index.

    Raises:
        UserError: If the images are others than those of the labels, or
            cannot be read.
    """
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    try:
        dataset = DATASETS.build(config.test_dataloader.dataset)
        labels = get_labels(dataset)
    except (UserError, OSError) as e:
        raise _unreadable(e) from e
    if not np.array_equal(labels, gt_label):
        raise UserError(
            f'the predictions are of {len(gt_label)} images, but the test set '
            f'of the config ({type(dataset).__name__}, {len(labels)} images) '
            'differs in its images or their order. Use `--images 0` for a '
            'report without images.'
        )
    # the convention of mmpretrain: what is to be made RGB is BGR
    preprocessor = config.get('data_preprocessor') or config.model.get('data_preprocessor') or {}
    is_bgr = preprocessor.get('to_rgb', False)
    try:
        return {int(index): _to_rgb(dataset[int(index)]['inputs'], is_bgr) for index in indices}
    except OSError as e:
        raise _unreadable(e) from e


def _unreadable(error: Exception) -> UserError:
    return UserError(
        f'the test images cannot be read: {error} Use `--images 0` for a report without images.'
    )


def _to_rgb(image: torch.Tensor, is_bgr: bool) -> np.ndarray:
    pixels = image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        return pixels.repeat(3, axis=2)
    return pixels[..., ::-1] if is_bgr else pixels


def data_uri(picture: np.ndarray) -> str:
    """Make a picture, (H, W, 3), a part of the page: a small PNG."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, 'PNG', optimize=True)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/png;base64,{content}'
