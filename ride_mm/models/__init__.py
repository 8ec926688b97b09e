from .backbones import CIFARResNet, ResNet10
from .classifiers import RIDEClassifier
from .data_preprocessor import RIDEDataPreprocessor
from .heads import CosineClassifier, ExpertRouter, LinearClassifier, RIDEHead
from .losses import DiversityLoss, LDAMLoss, RoutingLoss, SoftmaxFocalLoss
from .necks import CIFARResNetExpert, MultiExpertNeck, ResNetExpert

__all__ = [
    'CIFARResNet', 'CIFARResNetExpert', 'CosineClassifier', 'DiversityLoss',
    'ExpertRouter', 'LDAMLoss', 'LinearClassifier', 'MultiExpertNeck',
    'RIDEClassifier', 'RIDEDataPreprocessor', 'RIDEHead', 'ResNet10',
    'ResNetExpert', 'RoutingLoss', 'SoftmaxFocalLoss'
]
