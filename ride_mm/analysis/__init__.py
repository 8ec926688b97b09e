from ride_mm.analysis.accuracy.accuracy_by_class import plot_accuracy_by_class
from ride_mm.analysis.accuracy.confusion import (
    GroupConfusion,
    group_confusion,
    plot_group_confusion,
)
from ride_mm.analysis.accuracy.summary import (
    draw_summary,
    summarize,
    summarize_file,
    summary_tables,
)
from ride_mm.analysis.calibration.reliability_diagram import plot_reliability
from ride_mm.analysis.calibration.temperature import collect_logits, fit_temperature
from ride_mm.analysis.comparison.compare import (
    Comparison,
    compare,
    compare_files,
    plot_differences,
)
from ride_mm.analysis.comparison.intervals import Difference, bootstrap
from ride_mm.analysis.comparison.runs import EvaluatedRun, Runs, read_runs
from ride_mm.analysis.comparison.seeds import read_seeds, seeds_table
from ride_mm.analysis.predictions import Predictions, read_own_predictions, read_predictions
from ride_mm.analysis.report import write_report
from ride_mm.analysis.routing.compute import (
    Compute,
    Part,
    Usage,
    compute_tables,
    expected_macs,
    image_size,
    measure_compute,
    plot_compute,
    predicted_shares,
    report_compute,
)
from ride_mm.analysis.routing.expert_usage import plot_expert_usage, plot_experts_by_class
from ride_mm.analysis.routing.tradeoff import (
    OperatingPoint,
    RoutingSimulator,
    choose_point,
    plot_tradeoff,
    route,
)
from ride_mm.analysis.training.training_curves import plot_training_curves
from ride_mm.analysis.variance.bias_variance import (
    Decomposition,
    bias_variance,
    bias_variance_table,
    compare_bias_variance,
    decompose,
    plot_bias_variance,
)
from ride_mm.engine.scalars import TrainingCurves, read_curves

__all__ = [
    'Comparison',
    'Compute',
    'Decomposition',
    'Difference',
    'EvaluatedRun',
    'GroupConfusion',
    'OperatingPoint',
    'Part',
    'Predictions',
    'RoutingSimulator',
    'Runs',
    'TrainingCurves',
    'Usage',
    'bias_variance',
    'bias_variance_table',
    'bootstrap',
    'choose_point',
    'collect_logits',
    'compare',
    'compare_bias_variance',
    'compare_files',
    'compute_tables',
    'decompose',
    'draw_summary',
    'expected_macs',
    'fit_temperature',
    'group_confusion',
    'image_size',
    'measure_compute',
    'plot_accuracy_by_class',
    'plot_bias_variance',
    'plot_compute',
    'plot_differences',
    'plot_expert_usage',
    'plot_experts_by_class',
    'plot_group_confusion',
    'plot_reliability',
    'plot_tradeoff',
    'plot_training_curves',
    'predicted_shares',
    'read_curves',
    'read_own_predictions',
    'read_predictions',
    'read_runs',
    'read_seeds',
    'report_compute',
    'route',
    'seeds_table',
    'summarize',
    'summarize_file',
    'summary_tables',
    'write_report',
]
