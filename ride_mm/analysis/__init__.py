from .confusion import GroupConfusion, group_confusion
from .plots import (plot_accuracy_by_class, plot_expert_usage,
                    plot_experts_by_class, plot_group_confusion,
                    plot_reliability, plot_tradeoff, plot_training_curves)
from .predictions import Predictions, read_own_predictions, read_predictions
from .report import write_report
from .results import collect_result, read_results, write_result
from .scalars import TrainingCurves, read_curves
from .summary import draw_summary, summarize, summarize_file, summary_tables
from .tradeoff import (Curve, OperatingPoint, RoutingSimulator, choose_point,
                       route)

__all__ = [
    'Curve', 'GroupConfusion', 'OperatingPoint', 'Predictions',
    'RoutingSimulator', 'TrainingCurves', 'choose_point', 'collect_result',
    'draw_summary', 'group_confusion', 'plot_accuracy_by_class',
    'plot_expert_usage', 'plot_experts_by_class', 'plot_group_confusion',
    'plot_reliability', 'plot_tradeoff', 'plot_training_curves', 'read_curves',
    'read_own_predictions', 'read_predictions', 'read_results', 'route',
    'summarize', 'summarize_file', 'summary_tables', 'write_report',
    'write_result'
]
