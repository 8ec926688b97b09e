"""Hooks, schedules, checks of a config, and sweeps."""

from .hooks import (
    CheckpointHook,
    ClassCountsHook,
    DeferredReweightingHook,
    DistSamplerSeedHook,
    RouterCacheHook,
    TotalBatchHook,
    TwoStageHook,
)
from .optim_wrappers import AmpOptimWrapper
from .optimizers import MuonSGD

__all__ = [
    'AmpOptimWrapper',
    'CheckpointHook',
    'ClassCountsHook',
    'DeferredReweightingHook',
    'DistSamplerSeedHook',
    'MuonSGD',
    'RouterCacheHook',
    'TotalBatchHook',
    'TwoStageHook',
]
