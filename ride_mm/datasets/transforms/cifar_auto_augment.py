import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy


@TRANSFORMS.register_module()
class CIFARAutoAugment(BaseTransform):
    """The AutoAugment policy for CIFAR, computed by torchvision.

    Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data",
    CVPR 2019. Each image gets one of 25 pairs of operations. Crops and flips
    are not part of it: add :class:`DrawCropFlipRotate`.

    **Required Keys:** img (uint8, (H, W, 3))

    **Modified Keys:** img

    Args:
        bgr (bool): Whether images are BGR, as with ``to_bgr=True`` of the
            datasets. Defaults to True.
    """

    def __init__(self, bgr: bool = True) -> None:
        self.bgr = bgr
        self.policy = _Policy(AutoAugmentPolicy.CIFAR10)

    def transform(self, results: dict) -> dict:
        """Augment ``img``."""
        order = slice(None, None, -1 if self.bgr else 1)
        image = Image.fromarray(np.ascontiguousarray(results['img'][..., order]))
        results['img'] = np.array(self.policy(image))[..., order]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(bgr={self.bgr})'


class _Policy(AutoAugment):
    """AutoAugment that computes the magnitudes once for each image size."""

    def __init__(self, policy: AutoAugmentPolicy) -> None:
        super().__init__(policy)
        self._spaces: dict[tuple[int, int], dict[str, tuple[torch.Tensor, bool]]] = {}

    def _augmentation_space(
        self, num_bins: int, image_size: tuple[int, int]
    ) -> dict[str, tuple[torch.Tensor, bool]]:
        size = tuple(image_size)
        if size not in self._spaces:
            self._spaces[size] = super()._augmentation_space(num_bins, image_size)
        return self._spaces[size]
