"""The images whose true class gets the lowest probability."""

import base64
import io
import math
from collections.abc import Iterable
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
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation import ScoreQuality, score_quality
from ride_mm.utils.errors import UserError

# Sides in pixels: larger pictures are downsized, smaller ones shown pixelated.
_LARGEST = 192
_SMALL = 96


@dataclass(frozen=True)
class Opinion:
    """The prediction of one expert for an image.

    Attributes:
        label (int): The predicted class.
        confidence (float): Its probability.
        asked (bool): Whether the routed model used the expert.
    """

    label: int
    confidence: float
    asked: bool


@dataclass(frozen=True)
class HardImage:
    """A test image whose true class gets a low probability.

    Attributes:
        index (int): Index in the test set.
        gt_label (int): The true class.
        pred_label (int): The predicted class.
        confidence (float): Probability of the predicted class.
        nll (float): Negative log-likelihood of the true class, in nats.
        opinions (list[Opinion]): Predictions of the experts; empty if the
            file has no logits of the experts.
        used (int, optional): Number of experts used. None if the model has
            no experts.
        picture (str, optional): The image as a data URI. None without one.
        pixelated (bool): Whether the picture is so small that it is enlarged.
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
        """float: Probability of the true class."""
        return math.exp(-self.nll)


def hardest_images(
    predictions: Predictions, groups: ClassGroups, number: int, config: Config | None = None
) -> dict[str, list[HardImage]]:
    """Find the images whose true class gets the lowest probability.

    Args:
        predictions (Predictions): The predictions.
        groups (ClassGroups): The groups of the classes.
        number (int): Number of images, divided evenly among the groups.
        config (Config, optional): Config whose ``test_dataloader.dataset``
            has the images. Defaults to None, which means no pictures.

    Returns:
        dict[str, list[HardImage]]: By group, the hardest image first; of
        equally hard images the first of the test set.

    Raises:
        UserError: If the test images of the config are not those of the
            predictions, or cannot be read.
    """
    quality = score_quality(
        torch.from_numpy(predictions.pred_score), torch.from_numpy(predictions.gt_label)
    )
    members = groups.of_images(predictions.gt_label)
    members.pop('overall')
    order = np.argsort(-quality.nll, kind='stable')
    numbers = [len(part) for part in np.array_split(np.arange(number), len(members))]
    chosen = {
        name: order[images[order]][:most].tolist()
        for (name, images), most in zip(members.items(), numbers)
        if most
    }
    pictures = {}
    if config is not None:
        pictures = load_pictures(config, sum(chosen.values(), []), predictions.gt_label)
    return {
        name: [_describe(predictions, quality, i, pictures.get(i)) for i in indices]
        for name, indices in chosen.items()
    }


def _describe(
    predictions: Predictions, quality: ScoreQuality, index: int, picture: np.ndarray | None
) -> HardImage:
    used, opinions = None, []
    if predictions.num_experts_used is not None:
        used = int(predictions.num_experts_used[index])
    if predictions.expert_logits is not None:
        scores = softmax(predictions.expert_logits[:, index].astype(np.float64), axis=1)
        opinions = [
            Opinion(int(of_expert.argmax()), float(of_expert.max()), used is None or k < used)
            for k, of_expert in enumerate(scores)
        ]
    return HardImage(
        index,
        int(predictions.gt_label[index]),
        int(predictions.pred_label[index]),
        float(quality.confidence[index]),
        float(quality.nll[index]),
        opinions,
        used,
        picture=None if picture is None else data_uri(picture),
        pixelated=picture is not None and max(picture.shape) < _SMALL,
    )


def load_pictures(
    config: Config, indices: Iterable[int], gt_label: np.ndarray
) -> dict[int, np.ndarray]:
    """Load test images as the model gets them, before normalization.

    Args:
        config (Config): Config with ``test_dataloader.dataset``.
        indices (Iterable[int]): Indices of the images to load.
        gt_label (np.ndarray): True labels of all test images, (N, ).

    Returns:
        dict[int, np.ndarray]: RGB images, uint8, (H, W, 3), by index.

    Raises:
        UserError: If the labels of the test set are not ``gt_label``, or an
            image cannot be read.
    """
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    # MMPretrain's preprocessor converts BGR images to RGB if `to_rgb` is set.
    preprocessor = config.get('data_preprocessor') or config.model.get('data_preprocessor') or {}
    is_bgr = preprocessor.get('to_rgb', False)
    try:
        dataset = DATASETS.build(config.test_dataloader.dataset)
        labels = get_labels(dataset)
        if np.array_equal(labels, gt_label):
            return {index: _to_rgb(dataset[index]['inputs'], is_bgr) for index in indices}
    except (UserError, OSError) as e:
        raise UserError(
            f'the test images cannot be read: {e} Use `--images 0` for a report without images.'
        ) from e
    raise UserError(
        f'the predictions are for {len(gt_label)} images, but the test set '
        f'of the config ({type(dataset).__name__}, {len(labels)} images) '
        'differs in its images or their order. Use `--images 0` for a '
        'report without images.'
    )


def _to_rgb(image: torch.Tensor, is_bgr: bool) -> np.ndarray:
    pixels = image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        return pixels.repeat(3, axis=2)
    return pixels[..., ::-1] if is_bgr else pixels


def data_uri(picture: np.ndarray) -> str:
    """Encode an image, (H, W, 3), as a small PNG in a data URI."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, 'PNG', optimize=True)
    return f'data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'
