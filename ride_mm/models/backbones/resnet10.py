from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import BasicBlock
from mmpretrain.registry import MODELS


@MODELS.register_module()
class ResNet10(ResNet):
    """ResNet with one basic block a stage, a usual size on ImageNet-LT.

    Args:
        depth (int): Always 10. Defaults to 10.
        **kwargs: Options of mmpretrain's ``ResNet``.
    """

    arch_settings = {10: (BasicBlock, (1, 1, 1, 1))}

    def __init__(self, depth: int = 10, **kwargs) -> None:
        super().__init__(depth, **kwargs)
