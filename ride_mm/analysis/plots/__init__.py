from .accuracy_by_class import plot_accuracy_by_class
from .compute import plot_compute
from .expert_usage import plot_expert_usage
from .style import save

__all__ = [
    'plot_accuracy_by_class', 'plot_compute', 'plot_expert_usage', 'save'
]
