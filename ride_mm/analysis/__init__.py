from .plots import plot_accuracy_by_class, plot_expert_usage
from .predictions import Predictions, read_own_predictions, read_predictions
from .results import collect_result, read_results, write_result
from .summary import draw_summary, summarize, summarize_file, summary_tables

__all__ = [
    'Predictions', 'collect_result', 'draw_summary', 'plot_accuracy_by_class',
    'plot_expert_usage', 'read_own_predictions', 'read_predictions',
    'read_results', 'summarize', 'summarize_file', 'summary_tables',
    'write_result'
]
