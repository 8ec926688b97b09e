from .compute import (Compute, Part, Usage, compute_tables, expected_macs,
                      image_size, measure_compute, predicted_shares,
                      report_compute)
from .plots import plot_accuracy_by_class, plot_compute, plot_expert_usage
from .predictions import Predictions, read_predictions
from .results import collect_result, read_results, write_result
from .summary import draw_summary, summarize, summarize_file, summary_table

__all__ = [
    'Compute', 'Part', 'Predictions', 'Usage', 'collect_result',
    'compute_tables', 'draw_summary', 'expected_macs', 'image_size',
    'measure_compute', 'plot_accuracy_by_class', 'plot_compute',
    'plot_expert_usage', 'predicted_shares', 'read_predictions',
    'read_results', 'report_compute', 'summarize', 'summarize_file',
    'summary_table', 'write_result'
]
