from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS

from ..adapters import add_adapters


@MODELS.register_module()
class AdaptFormerViT(VisionTransformer):
    """MMPretrain's ViT, frozen, with a trained adapter in each layer.

    Args:
        adapter_channels (int): Width of the adapters. LIFT takes the largest
            power of two that is at most K / 2L, for K classes and L layers.
        **options: Those of ``VisionTransformer``.

    Raises:
        UserError: If the width is below 1.
    """

    def __init__(self, *args, adapter_channels: int, **options) -> None:
        super().__init__(*args, **options)
        add_adapters(self, adapter_channels)
