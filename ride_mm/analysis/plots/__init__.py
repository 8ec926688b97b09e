from .accuracy_by_class import plot_accuracy_by_class
from .bias_variance import plot_bias_variance
from .compare import plot_differences
from .compute import plot_compute
from .expert_usage import plot_expert_usage
from .experts_by_class import plot_experts_by_class
from .group_confusion import plot_group_confusion
from .reliability import plot_reliability
from .style import check_format, save
from .tradeoff import plot_tradeoff
from .training_curves import plot_training_curves

__all__ = [
    'check_format', 'plot_accuracy_by_class',
    'plot_bias_variance', 'plot_compute', 'plot_differences',
    'plot_expert_usage', 'plot_experts_by_class', 'plot_group_confusion',
    'plot_reliability', 'plot_tradeoff', 'plot_training_curves', 'save'
]
