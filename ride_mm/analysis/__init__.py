from ride_mm.engine.scalars import TrainingCurves, read_curves
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
from .runs import Run, Runs, read_runs
from .seeds import read_seeds, seeds_table
from .summary import draw_summary, summarize, summarize_file, summary_tables
from .temperature import collect_logits, fit_temperature
from .tradeoff import (Curve, OperatingPoint, RoutingSimulator, choose_point,
                       route)

__all__ = [
    'Comparison', 'Compute', 'Curve', 'Decomposition', 'Difference',
    'GroupConfusion', 'OperatingPoint', 'Part', 'Predictions',
    'RoutingSimulator', 'Run', 'Runs', 'TrainingCurves', 'Usage',
    'bias_variance', 'bias_variance_table', 'bootstrap', 'choose_point',
    'collect_logits', 'compare', 'compare_bias_variance', 'compare_files',
    'compute_tables', 'decompose', 'draw_summary', 'expected_macs',
    'fit_temperature', 'group_confusion', 'image_size', 'measure_compute',
    'plot_accuracy_by_class', 'plot_bias_variance', 'plot_compute',
    'plot_differences', 'plot_expert_usage', 'plot_experts_by_class',
    'plot_group_confusion', 'plot_reliability', 'plot_tradeoff',
    'plot_training_curves', 'predicted_shares', 'read_curves',
    'read_own_predictions', 'read_predictions', 'read_runs', 'read_seeds',
    'report_compute', 'route', 'seeds_table', 'summarize', 'summarize_file',
    'summary_tables', 'write_report'
]
