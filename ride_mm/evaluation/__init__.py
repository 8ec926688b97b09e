from .class_group_metric import ClassGroupMetric
from .expert_usage import ExpertUsageMetric, expert_usage
from .long_tail import (LongTailMetric, accuracy_by_class, long_tail_accuracy,
                        topk_hits)

__all__ = [
    'ClassGroupMetric', 'ExpertUsageMetric', 'LongTailMetric',
    'accuracy_by_class', 'expert_usage', 'long_tail_accuracy', 'topk_hits'
]
