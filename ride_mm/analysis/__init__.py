from .bias_variance import (Decomposition, bias_variance, bias_variance_table,
                            compare_bias_variance, decompose)
from .compare import Comparison, compare, compare_files
from .compute import (Compute, Part, Usage, compute_tables, expected_macs,
                      image_size, measure_compute, predicted_shares,
                      report_compute)
from .confusion import GroupConfusion, group_confusion
from .intervals import Difference, bootstrap
from .plots import (plot_accuracy_by_class, plot_bias_variance, plot_compute,
                    plot_differences, plot_expert_usage, plot_experts_by_class,
                    plot_group_confusion, plot_reliability, plot_tradeoff,
                    plot_training_curves)
from .predictions import Predictions, read_own_predictions, read_predictions
from .report import write_report
from .resampled_runs import ResampledRuns, prepare_config, shared_starts
from .results import collect_result, read_results, write_result
from .runs import Run, Runs, read_runs
from .scalars import TrainingCurves, read_curves
from .summary import draw_summary, summarize, summarize_file, summary_tables
from .temperature import collect_logits, fit_temperature
from .tradeoff import (Curve, OperatingPoint, RoutingSimulator, choose_point,
                       route)

__all__ = [
    'Comparison', 'Compute', 'Curve', 'Decomposition', 'Difference',
    'GroupConfusion', 'OperatingPoint', 'Part', 'Predictions', 'ResampledRuns',
    'RoutingSimulator', 'Run', 'Runs', 'TrainingCurves', 'Usage',
    'bias_variance', 'bias_variance_table', 'bootstrap', 'choose_point',
    'collect_logits', 'collect_result', 'compare', 'compare_bias_variance',
    'compare_files', 'compute_tables', 'decompose', 'draw_summary',
    'expected_macs', 'fit_temperature', 'group_confusion', 'image_size',
    'measure_compute', 'plot_accuracy_by_class', 'plot_bias_variance',
    'plot_compute', 'plot_differences', 'plot_expert_usage',
    'plot_experts_by_class', 'plot_group_confusion', 'plot_reliability',
    'plot_tradeoff', 'plot_training_curves', 'predicted_shares',
    'prepare_config', 'read_curves', 'read_own_predictions',
    'read_predictions', 'read_results', 'read_runs', 'report_compute', 'route',
    'shared_starts', 'summarize', 'summarize_file', 'summary_tables',
    'write_report', 'write_result'
]
