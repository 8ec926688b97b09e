from .bias_variance import (Decomposition, bias_variance, bias_variance_table,
                            compare_bias_variance, decompose)
from .plots import (plot_accuracy_by_class, plot_bias_variance,
                    plot_expert_usage)
from .predictions import Predictions, read_predictions
from .resampled_runs import ResampledRuns, prepare_config, shared_starts
from .results import collect_result, read_results, write_result
from .summary import draw_summary, summarize, summarize_file, summary_table

__all__ = [
    'Decomposition', 'Predictions', 'ResampledRuns', 'bias_variance',
    'bias_variance_table', 'collect_result', 'compare_bias_variance',
    'decompose', 'draw_summary', 'plot_accuracy_by_class',
    'plot_bias_variance', 'plot_expert_usage', 'prepare_config',
    'read_predictions', 'read_results', 'shared_starts', 'summarize',
    'summarize_file', 'summary_table', 'write_result'
]
