"""Samplers that draw an epoch by class."""

from .class_balanced import ClassBalancedSampler
from .epoch_sampler import ReshuffledSampler
from .power import PowerSampler

__all__ = ['ClassBalancedSampler', 'PowerSampler', 'ReshuffledSampler']
