"""Hooks of the training loop."""

from .checkpoint_hook import CheckpointHook
from .class_counts_hook import ClassCountsHook
from .class_mean_init_hook import ClassMeanInitHook
from .data_check_hook import DataCheckHook
from .deferred_reweighting_hook import DeferredReweightingHook
from .new_classifiers_hook import NewClassifiersHook
from .non_finite_hook import NonFiniteHook
from .router_cache_hook import RouterCacheHook
from .sampler_seed_hook import DistSamplerSeedHook
from .schedule_hook import ScheduleHook
from .stop_signal_hook import StopSignalHook
from .total_batch_hook import TotalBatchHook
from .trunk_cache_hook import TrunkCacheHook
from .two_stage_hook import TwoStageHook
from .validation_check_hook import ValidationCheckHook

__all__ = [
    'CheckpointHook',
    'ClassCountsHook',
    'ClassMeanInitHook',
    'DataCheckHook',
    'DeferredReweightingHook',
    'DistSamplerSeedHook',
    'NewClassifiersHook',
    'NonFiniteHook',
    'RouterCacheHook',
    'ScheduleHook',
    'StopSignalHook',
    'TotalBatchHook',
    'TrunkCacheHook',
    'TwoStageHook',
    'ValidationCheckHook',
]
