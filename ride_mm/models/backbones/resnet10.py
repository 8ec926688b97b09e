from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import BasicBlock
from mmpretrain.registry import MODELS

from .cifar_resnet import depth_by_block


@MODELS.register_module()
class ResNet10(ResNet):
    """ResNet with one basic block per stage, a common size on ImageNet-LT.

    Args:
        depth (int): Always 10. Defaults to 10.
        **kwargs: Options of mmpretrain's ``ResNet``.
    """

    arch_settings = {10: (BasicBlock, (1, 1, 1, 1))}

    def __init__(self, depth: int = 10, **kwargs) -> None:
        super().__init__(depth, **kwargs)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :func:`.depth_by_block`; called by mmpretrain."""
        return depth_by_block(param_name, prefix, self.stage_blocks)
