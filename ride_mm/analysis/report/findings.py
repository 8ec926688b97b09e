"""The figures of a report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from ride_mm.analysis.accuracy.confusion import GroupConfusion, group_confusion
from ride_mm.analysis.accuracy.summary import of_kind, summarize
from ride_mm.analysis.predictions import Predictions
from ride_mm.analysis.report.source import Source
from ride_mm.analysis.routing.tradeoff import route
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation import expert_usage
from ride_mm.utils.errors import UserError

_THRESHOLD = 0.5


@dataclass(frozen=True)
class Findings:
    """The figures of a model.

    Attributes:
        source (source.Source): The content of the files.
        groups (ClassGroups): The groups of the K classes.
        main (Predictions): The predictions of the model as its config makes
            it predict: routed if there are trained routers, else of all
            experts.
        figures (dict[str, float]): The output of :func:`.summarize` for
            ``main``.
        confusion (GroupConfusion): The confusion of ``main``.
        thresholds (list[float], optional): One per router. None if the
            outputs of trained routers are unknown.
        routed (Predictions): The predictions at these thresholds, or
            ``main`` without thresholds.
        all_experts (dict[str, float], optional): The output of
            :func:`.summarize` for all experts on every image, if ``main`` is
            routed at these thresholds.
        usage (dict[str, float], optional): The output of
            :func:`.expert_usage` for ``routed``. None if nothing is routed.
    """

    source: Source
    groups: ClassGroups
    main: Predictions
    figures: dict[str, float]
    confusion: GroupConfusion
    thresholds: list[float] | None
    routed: Predictions
    all_experts: dict[str, float] | None
    usage: dict[str, float] | None

    @property
    def names(self) -> Sequence[str]:
        """list[str]: The names of the K classes."""
        return self.main.run['classes'] or [f'class {i}' for i in range(len(self.groups))]

    @property
    def titles(self) -> dict[str, str]:
        """dict[str, str]: The groups and their sizes, without line breaks in
        a size."""
        return {
            name: title.replace(' ', '\u00a0').replace('\u00a0(', ' (')
            for name, title in self.groups.titles.items()
        }

    @cached_property
    def members(self) -> dict[str, np.ndarray]:
        """dict[str, np.ndarray]: Bool masks of the images of each group."""
        return self.groups.of_images(self.main.gt_label)

    @property
    def num_experts(self) -> int:
        """int: The number of experts, or the largest number that an image
        used if the outputs of the experts are unknown. 0 without experts."""
        if self.main.num_experts_used is None:
            return 0
        logits = self.main.expert_logits
        return int(self.main.num_experts_used.max()) if logits is None else len(logits)

    @property
    def is_routed(self) -> bool:
        """bool: Whether ``main`` is routed."""
        return self.usage is not None and (self.thresholds is None or self.all_experts is not None)

    @property
    def threshold_label(self) -> str:
        """str: The thresholds of the routers in words, one if all are equal."""
        values = [f'{value:g}' for value in self.thresholds or ()]
        return f'threshold {", ".join(values if len(set(values)) > 1 else values[:1])}'

    def of_kind(self, kind: str) -> dict[str, float]:
        """Return the figures of a kind, such as 'calibration', by name."""
        return of_kind(self.figures, kind)

    def as_dict(self) -> dict:
        """Return all figures, for a JSON file."""
        return dict(
            routing=self.thresholds,
            figures=self.figures,
            all_experts=self.all_experts,
            confusion=asdict(self.confusion),
        )


def find(source: Source) -> Findings:
    """Compute the figures of a report.

    Args:
        source (source.Source): The content of the files.

    Returns:
        Findings: The figures.

    Raises:
        UserError: If the class counts do not fit the predictions.
    """
    main = source.predictions
    groups = ClassGroups(main.run['class_counts'], main.run['thresholds'])
    thresholds, all_experts, usage = None, None, None
    routed = main
    if main.router_logits is not None:
        thresholds = _routing_thresholds(source, len(main.router_logits))
        routed = route(main, thresholds)
        if _routes(source):
            main, all_experts = routed, summarize(main, groups)
    used, compute = routed.num_experts_used, routed.relative_compute
    if used is not None and compute is not None and (thresholds is not None or np.ptp(used)):
        usage = expert_usage(used, compute, main.gt_label, groups)
    return Findings(
        source,
        groups,
        main,
        summarize(main, groups),
        group_confusion(main.pred_label, main.gt_label, groups),
        thresholds,
        routed,
        all_experts,
        usage,
    )


def _test_cfg(source: Source) -> dict:
    model = {} if source.config is None else source.config.get('model')
    options = (model or {}).get('test_cfg')
    return options if isinstance(options, dict) else {}


def _routes(source: Source) -> bool:
    """Whether the config makes the model route. The config that a test with
    `--all-experts` dumps into the work_dir does not count."""
    options = _test_cfg(source)
    return options.get('mode') != 'ensemble' or options.get('expert_logits', False)


def _routing_thresholds(source: Source, num_routers: int) -> list[float]:
    threshold = _test_cfg(source).get('threshold', _THRESHOLD)
    values = [threshold] * num_routers if isinstance(threshold, (int, float)) else threshold
    if (
        not isinstance(values, (list, tuple))
        or len(values) != num_routers
        or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values)
    ):
        raise UserError(
            f'model.test_cfg.threshold={threshold!r} of the config: expected a probability, or '
            f'one for each of the {num_routers} routers of these predictions.'
        )
    return list(map(float, values))
