from .class_balanced import ClassBalancedSampler
from .power import PowerSampler

__all__ = ['ClassBalancedSampler', 'PowerSampler']
