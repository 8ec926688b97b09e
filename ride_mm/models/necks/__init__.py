"""The experts: the stages of a backbone after its trunk."""

from .cifar_resnet_expert import CIFARResNetExpert
from .convnext_expert import ConvNeXtExpert
from .efficientnet_lite_expert import EfficientNetLiteExpert
from .multi_expert_neck import MultiExpertNeck
from .resnet_expert import ResNetExpert
from .swin_expert import NormPool, SwinExpert, SwinV2Expert
from .vit_expert import ViTExpert

__all__ = [
    'CIFARResNetExpert',
    'ConvNeXtExpert',
    'EfficientNetLiteExpert',
    'MultiExpertNeck',
    'NormPool',
    'ResNetExpert',
    'SwinExpert',
    'SwinV2Expert',
    'ViTExpert',
]
