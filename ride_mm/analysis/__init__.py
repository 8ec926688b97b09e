"""Functions of the tools in ``tools/analysis``; the rest is in the modules."""

from ride_mm.analysis.accuracy.summary import summarize_file
from ride_mm.analysis.calibration.conformal import set_thresholds, sets_of
from ride_mm.analysis.calibration.temperature import fit_temperature
from ride_mm.analysis.comparison.compare import compare, compare_files
from ride_mm.analysis.comparison.intervals import bootstrap
from ride_mm.analysis.comparison.runs import read_runs
from ride_mm.analysis.predictions import read_predictions
from ride_mm.analysis.report import write_report
from ride_mm.analysis.routing.compute import report_compute
from ride_mm.analysis.routing.guarantee import guaranteed_point
from ride_mm.analysis.routing.tradeoff import RoutingSimulator, choose_point
from ride_mm.analysis.variance.bias_variance import bias_variance, compare_bias_variance, decompose

__all__ = [
    'RoutingSimulator',
    'bias_variance',
    'bootstrap',
    'choose_point',
    'compare',
    'compare_bias_variance',
    'compare_files',
    'decompose',
    'fit_temperature',
    'guaranteed_point',
    'read_predictions',
    'read_runs',
    'report_compute',
    'set_thresholds',
    'sets_of',
    'summarize_file',
    'write_report',
]
