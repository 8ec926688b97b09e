"""Metrics, each a function on NumPy arrays and a thin class."""

from .calibration import (
    CalibrationMetric,
    ReliabilityBins,
    ScoreQuality,
    calibration,
    calibration_error,
    reliability_bins,
    score_quality,
)
from .class_group_metric import ClassGroupMetric
from .dump import DumpPredictions, describe_run, fingerprint
from .expert_usage import ExpertUsageMetric, expert_usage
from .experts import ExpertMetric, expert_columns, expert_figures
from .label_shift import correct_prior, shift_priors, shift_table, shifted_accuracy, shifted_prior
from .long_tail import (
    LongTailMetric,
    accuracy_by_class,
    long_tail_accuracy,
    recall_means,
    topk_hits,
)

__all__ = [
    'CalibrationMetric',
    'ClassGroupMetric',
    'DumpPredictions',
    'ExpertMetric',
    'ExpertUsageMetric',
    'LongTailMetric',
    'ReliabilityBins',
    'ScoreQuality',
    'accuracy_by_class',
    'calibration',
    'calibration_error',
    'correct_prior',
    'describe_run',
    'expert_columns',
    'expert_figures',
    'expert_usage',
    'fingerprint',
    'long_tail_accuracy',
    'recall_means',
    'reliability_bins',
    'score_quality',
    'shift_priors',
    'shift_table',
    'shifted_accuracy',
    'shifted_prior',
    'topk_hits',
]
