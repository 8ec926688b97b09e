from .compare import Comparison, compare, compare_files
from .intervals import Difference, bootstrap
from .plots import plot_accuracy_by_class, plot_differences, plot_expert_usage
from .predictions import Predictions, read_own_predictions, read_predictions
from .results import collect_result, read_results, write_result
from .runs import Run, Runs, read_runs
from .summary import draw_summary, summarize, summarize_file, summary_tables

__all__ = [
    'Comparison', 'Difference', 'Predictions', 'Run', 'Runs', 'bootstrap',
    'collect_result', 'compare', 'compare_files', 'draw_summary',
    'plot_accuracy_by_class', 'plot_differences', 'plot_expert_usage',
    'read_own_predictions', 'read_predictions', 'read_results', 'read_runs',
    'summarize', 'summarize_file', 'summary_tables', 'write_result'
]
