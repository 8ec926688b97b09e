from .accuracy_by_class import plot_accuracy_by_class
from .bias_variance import plot_bias_variance
from .compute import plot_compute
from .expert_usage import plot_expert_usage
from .style import save
from .tradeoff import plot_tradeoff

__all__ = [
    'plot_accuracy_by_class', 'plot_bias_variance', 'plot_compute',
    'plot_expert_usage', 'plot_tradeoff', 'save'
]
