from .bias_variance import (Decomposition, bias_variance, bias_variance_table,
                            compare_bias_variance, decompose)
from .plots import (plot_accuracy_by_class, plot_bias_variance,
                    plot_expert_usage, plot_tradeoff)
from .predictions import Predictions, read_own_predictions, read_predictions
from .resampled_runs import ResampledRuns, prepare_config, shared_starts
from .results import collect_result, read_results, write_result
from .summary import draw_summary, summarize, summarize_file, summary_tables
from .tradeoff import Curve, OperatingPoint, RoutingSimulator, choose_point

__all__ = [
    'Curve', 'Decomposition', 'OperatingPoint', 'Predictions', 'ResampledRuns',
    'RoutingSimulator', 'bias_variance', 'bias_variance_table',
    'choose_point', 'collect_result', 'compare_bias_variance', 'decompose',
    'draw_summary', 'plot_accuracy_by_class', 'plot_bias_variance',
    'plot_expert_usage', 'plot_tradeoff', 'prepare_config',
    'read_own_predictions', 'read_predictions', 'read_results',
    'shared_starts', 'summarize', 'summarize_file', 'summary_tables',
    'write_result'
]
