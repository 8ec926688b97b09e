from .plots import plot_accuracy_by_class, plot_expert_usage
from .predictions import Predictions, read_predictions
from .summary import draw_summary, summarize, summarize_file, summary_table

__all__ = [
    'Predictions', 'draw_summary', 'plot_accuracy_by_class',
    'plot_expert_usage', 'read_predictions', 'summarize', 'summarize_file',
    'summary_table'
]
