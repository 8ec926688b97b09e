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

__all__ = [
    'AmpOptimWrapper',
    'CheckpointHook',
    'ClassCountsHook',
    'DeferredReweightingHook',
    'DistSamplerSeedHook',
    'RouterCacheHook',
    'TotalBatchHook',
    'TwoStageHook',
]
