from .accuracy_by_class import plot_accuracy_by_class
from .compare import plot_differences
from .expert_usage import plot_expert_usage
from .style import check_format, save

__all__ = [
    'check_format', 'plot_accuracy_by_class', 'plot_differences',
    'plot_expert_usage', 'save'
]
