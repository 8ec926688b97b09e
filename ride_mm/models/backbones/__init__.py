from .cifar_resnet import CIFARResNet
from .efficientnet_lite import EfficientNetLite
from .resnet10 import ResNet10

__all__ = ['CIFARResNet', 'EfficientNetLite', 'ResNet10']
