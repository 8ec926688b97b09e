from .accuracy_by_class import plot_accuracy_by_class
from .bias_variance import plot_bias_variance
from .compare import plot_differences
from .compute import plot_compute
from .expert_usage import plot_expert_usage
from .style import check_format, save
from .tradeoff import plot_tradeoff

__all__ = [
    'check_format', 'plot_accuracy_by_class', 'plot_bias_variance',
    'plot_compute', 'plot_differences', 'plot_expert_usage', 'plot_tradeoff',
    'save'
]
