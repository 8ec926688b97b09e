import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

# Operations that move pixels, and those that map values one by one: tables of
# both are made once.
_MOVES = frozenset({'ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'Rotate'})
_MAPS = frozenset({'Brightness', 'Invert', 'Posterize', 'Solarize'})
_VALUES = np.arange(256)
_CHANNELS = 256 * np.arange(3)
# Luminance of RGB, in 65536ths.
_LUMINANCE = np.array([19595, 38470, 7471])


@TRANSFORMS.register_module()
class CIFARAutoAugment(BaseTransform):
    """The AutoAugment policy for CIFAR.

    Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data",
    CVPR 2019. Each image gets one of 25 pairs of operations. Crops and flips
    are not part of it: add :class:`.DrawCropFlipRotate`. The images are those
    of torchvision's ``AutoAugment`` with the same seed, in a quarter of its time.

    **Required Keys:** img (uint8, (H, W, 3))

    **Modified Keys:** img

    Args:
        bgr (bool): Whether images are BGR, as with ``to_bgr=True`` of the
            datasets. Defaults to True.
    """

    def __init__(self, bgr: bool = True) -> None:
        self.bgr = bgr
        self._luminance = _LUMINANCE[::-1] if bgr else _LUMINANCE
        self._policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
        self._magnitudes: dict[tuple[int, int], dict] = {}
        self._tables: dict[tuple, np.ndarray] = {}

    def transform(self, results: dict) -> dict:
        """Augment ``img``."""
        image = results['img']
        pairs = self._policy.policies
        index, chances, signs = self._policy.get_params(len(pairs))
        for (name, probability, level), chance, sign in zip(
            pairs[index], chances.tolist(), signs.tolist()
        ):
            if chance <= probability:
                image = self._apply(image, name, self._magnitude(name, level, sign, image))
        results['img'] = image
        return results

    def _magnitude(self, name: str, level: int | None, sign: int, image: np.ndarray) -> float:
        if level is None:
            return 0.0
        size = image.shape[:2]
        if size not in self._magnitudes:
            self._magnitudes[size] = {
                name: (magnitudes.tolist(), signed)
                for name, (magnitudes, signed) in self._policy._augmentation_space(10, size).items()
            }
        magnitudes, signed = self._magnitudes[size][name]
        return -magnitudes[level] if signed and not sign else magnitudes[level]

    def _apply(self, image: np.ndarray, name: str, magnitude: float) -> np.ndarray:
        if name in _MOVES:
            sources = self._table(_moved, name, magnitude, *image.shape[:2])
            # Index 0 is the black that comes in.
            pixels = np.concatenate([np.zeros((1, 3), np.uint8), image.reshape(-1, 3)])
            return pixels[sources].reshape(image.shape)
        if name in _MAPS:
            return self._table(_mapped, name, magnitude)[image]
        if name == 'AutoContrast':
            return _stretched(image).ravel()[image + _CHANNELS]
        if name == 'Equalize':
            return _equalized(image).ravel()[image + _CHANNELS]
        if name == 'Sharpness':
            return np.array(_torchvision(Image.fromarray(image), name, magnitude))
        gray = (image @ self._luminance + 0x8000) >> 16
        if name == 'Color':
            return _blend(gray[..., None], image, 1 + magnitude)
        assert name == 'Contrast'
        return _blend(int(gray.mean() + 0.5), _VALUES, 1 + magnitude)[image]

    def _table(self, make, *key) -> np.ndarray:
        if key not in self._tables:
            self._tables[key] = make(*key)
        return self._tables[key]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(bgr={self.bgr})'


def _torchvision(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    return _apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)


def _moved(name: str, magnitude: float, height: int, width: int) -> np.ndarray:
    """Where each pixel comes from: 1 plus its index, or 0 for black."""
    indices = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    return np.asarray(_torchvision(Image.fromarray(indices), name, magnitude)).ravel()


def _mapped(name: str, magnitude: float) -> np.ndarray:
    values = Image.fromarray(_VALUES.astype(np.uint8)[None])
    return np.asarray(_torchvision(values, name, magnitude))[0]


def _stretched(image: np.ndarray) -> np.ndarray:
    """Tables, (3, 256), that stretch each channel to 0 to 255."""
    low, high = image.min((0, 1)).astype(int), image.max((0, 1)).astype(int)
    spread = high - low
    # One value alone stays.
    scale = np.where(spread > 0, 255.0 / np.maximum(spread, 1), 1.0)
    offset = np.where(spread > 0, -low * scale, 0.0)
    return np.clip(_VALUES * scale[:, None] + offset[:, None], 0, 255).astype(np.uint8)


def _equalized(image: np.ndarray) -> np.ndarray:
    """Tables, (3, 256), that equalize the histogram of each channel."""
    counts = np.bincount((image + _CHANNELS).ravel(), minlength=768).reshape(3, 256)
    below = counts.cumsum(1) - counts
    # Each step but those of the largest value.
    step = below[np.arange(3), image.max((0, 1))][:, None] // 255
    table = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    return np.where(step > 0, table, _VALUES).astype(np.uint8)


def _blend(first: np.ndarray | int, second: np.ndarray, alpha: float) -> np.ndarray:
    """``first + alpha * (second - first)`` as Pillow rounds it."""
    first, second = np.float32(first), np.float32(second)
    return np.clip(first + np.float32(alpha) * (second - first), 0, 255).astype(np.uint8)
