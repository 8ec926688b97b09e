"""The network: trunk, experts, classifiers, router, and their losses."""

from .backbones import AdaptFormerViT, CIFARResNet, EfficientNetLite, ResNet10
from .batch_augments import Remix
from .classifiers import RIDEClassifier
from .data_preprocessor import RIDEDataPreprocessor
from .heads import CosineClassifier, ExpertRouter, LinearClassifier, RIDEHead
from .losses import (
    BalancedSoftmaxLoss,
    ClassBalancedLoss,
    DistillationLoss,
    DiversityLoss,
    InverseSoftmaxLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
    RoutingLoss,
    SoftmaxFocalLoss,
)
from .necks import (
    CIFARResNetExpert,
    ConvNeXtExpert,
    EfficientNetLiteExpert,
    MultiExpertNeck,
    NormPool,
    ResNetExpert,
    SwinExpert,
    SwinV2Expert,
    ViTExpert,
)

__all__ = [
    'AdaptFormerViT',
    'BalancedSoftmaxLoss',
    'CIFARResNet',
    'CIFARResNetExpert',
    'ClassBalancedLoss',
    'ConvNeXtExpert',
    'CosineClassifier',
    'DistillationLoss',
    'DiversityLoss',
    'EfficientNetLite',
    'EfficientNetLiteExpert',
    'ExpertRouter',
    'InverseSoftmaxLoss',
    'LDAMLoss',
    'LinearClassifier',
    'LogitAdjustmentLoss',
    'MultiExpertNeck',
    'NormPool',
    'RIDEClassifier',
    'RIDEDataPreprocessor',
    'RIDEHead',
    'Remix',
    'ResNet10',
    'ResNetExpert',
    'RoutingLoss',
    'SoftmaxFocalLoss',
    'SwinExpert',
    'SwinV2Expert',
    'ViTExpert',
]
