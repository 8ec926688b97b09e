from .class_balanced import ClassBalancedSampler
from .power import PowerSampler
from .reshuffled import ReshuffledSampler

__all__ = ['ClassBalancedSampler', 'PowerSampler', 'ReshuffledSampler']
