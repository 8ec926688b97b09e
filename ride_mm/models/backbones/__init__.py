"""Backbones that MMPretrain lacks; of each, the first stages are a trunk."""

from .adaptformer_vit import AdaptFormerViT
from .cifar_resnet import CIFARResNet
from .efficientnet_lite import EfficientNetLite
from .resnet10 import ResNet10

__all__ = ['AdaptFormerViT', 'CIFARResNet', 'EfficientNetLite', 'ResNet10']
