"""Losses, each a function and a thin module."""

from .class_balanced_loss import ClassBalancedLoss
from .distillation_loss import DistillationLoss
from .diversity_loss import DiversityLoss
from .focal_loss import SoftmaxFocalLoss
from .ldam_loss import LDAMLoss
from .logit_adjustment_loss import BalancedSoftmaxLoss, InverseSoftmaxLoss, LogitAdjustmentLoss
from .routing_loss import RoutingLoss

__all__ = [
    'BalancedSoftmaxLoss',
    'ClassBalancedLoss',
    'DistillationLoss',
    'DiversityLoss',
    'InverseSoftmaxLoss',
    'LDAMLoss',
    'LogitAdjustmentLoss',
    'RoutingLoss',
    'SoftmaxFocalLoss',
]
