from .backbones import CIFARResNet, ResNet10
from .classifiers import RIDEClassifier
from .data_preprocessor import RIDEDataPreprocessor
from .heads import CosineClassifier, ExpertRouter, LinearClassifier, RIDEHead
from .losses import DiversityLoss, LDAMLoss, RoutingLoss, SoftmaxFocalLoss
from .necks import (CIFARResNetExpert, ConvNeXtExpert, MultiExpertNeck,
                    NormPool, ResNetExpert, SwinExpert, SwinV2Expert,
                    ViTExpert)

__all__ = [
    'CIFARResNet', 'CIFARResNetExpert', 'ConvNeXtExpert', 'CosineClassifier',
    'DiversityLoss', 'ExpertRouter', 'LDAMLoss', 'LinearClassifier',
    'MultiExpertNeck', 'NormPool', 'RIDEClassifier', 'RIDEDataPreprocessor',
    'RIDEHead', 'ResNet10', 'ResNetExpert', 'RoutingLoss', 'SoftmaxFocalLoss',
    'SwinExpert', 'SwinV2Expert', 'ViTExpert'
]
