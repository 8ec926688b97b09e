from .plots import plot_accuracy_by_class, plot_expert_usage, plot_tradeoff
from .predictions import Predictions, read_own_predictions, read_predictions
from .results import collect_result, read_results, write_result
from .summary import draw_summary, summarize, summarize_file, summary_tables
from .tradeoff import Curve, OperatingPoint, RoutingSimulator, choose_point

__all__ = [
    'Curve', 'OperatingPoint', 'Predictions', 'RoutingSimulator',
    'choose_point', 'collect_result', 'draw_summary', 'plot_accuracy_by_class',
    'plot_expert_usage', 'plot_tradeoff', 'read_own_predictions',
    'read_predictions', 'read_results', 'summarize', 'summarize_file',
    'summary_tables', 'write_result'
]
