from .diversity_loss import DiversityLoss
from .focal_loss import SoftmaxFocalLoss
from .ldam_loss import LDAMLoss
from .routing_loss import RoutingLoss

__all__ = ['DiversityLoss', 'LDAMLoss', 'RoutingLoss', 'SoftmaxFocalLoss']
