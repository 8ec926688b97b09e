"""What a report says, as figures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from ride_mm.analysis.accuracy.confusion import GroupConfusion, group_confusion
from ride_mm.analysis.accuracy.summary import summarize
from ride_mm.analysis.predictions import Predictions
from ride_mm.analysis.report.source import Source
from ride_mm.analysis.routing.tradeoff import route
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation import expert_usage
from ride_mm.utils.errors import UserError

_THRESHOLD = 0.5


@dataclass(frozen=True)
class Findings:
    """What is known of a model.

    Attributes:
        source (Source): Where from.
        main (Predictions): Of the model as its config has it predict: routed
            where routers are trained, else of all experts.
        routed (Predictions, optional): The same with routing, None without
            trained routers.
        routing (list[float], optional): The thresholds of that, one for each
            router.
        figures (dict[str, float]): What :func:`summarize` finds in ``main``.
        all_experts (dict[str, float], optional): The same of all experts on
            every image, where ``main`` is routed.
        confusion (GroupConfusion): Of ``main``.
    """

    source: Source
    main: Predictions
    routed: Predictions | None
    routing: list[float] | None
    figures: dict[str, float]
    all_experts: dict[str, float] | None
    confusion: GroupConfusion

    @cached_property
    def classes(self) -> ClassGroups:
        """ClassGroups: The groups of the K classes."""
        run = self.source.predictions.run
        return ClassGroups(run['class_counts'], run['thresholds'])

    @property
    def names(self) -> Sequence[str]:
        """list[str]: The names of the K classes."""
        classes = self.source.predictions.run['classes']
        return classes or [f'class {i}' for i in range(len(self.classes))]

    @property
    def titles(self) -> dict[str, str]:
        """dict[str, str]: The groups with their sizes, which are not broken
        into lines."""
        return {
            name: title[: len(name) + 1] + title[len(name) + 1 :].replace(' ', '\u00a0')
            for name, title in self.classes.titles.items()
        }

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """dict[str, np.ndarray]: The images of each group, bool masks."""
        return self.classes.of_images(self.main.gt_label)

    @property
    def num_experts(self) -> int | None:
        """int, optional: The number of experts, as far as the predictions
        tell. None if the model has none."""
        if self.main.num_experts_used is None:
            return None
        logits = self.main.expert_logits
        if logits is None:
            return int(self.main.num_experts_used.max())
        return len(logits)

    @property
    def usage(self) -> Predictions | None:
        """Predictions, optional: With how many experts routed images used.
        None where nothing is routed."""
        used = self.main.num_experts_used
        if self.routed is None and used is not None and np.ptp(used):
            return self.main
        return self.routed

    @property
    def is_routed(self) -> bool:
        """bool: Whether the figures are those of a routed model."""
        return self.usage is not None and self.usage is self.main

    @cached_property
    def usage_figures(self) -> dict[str, float]:
        """dict[str, float]: What :func:`expert_usage` finds in ``usage``."""
        return expert_usage(
            self.usage.num_experts_used,
            self.usage.relative_compute,
            self.usage.gt_label,
            self.classes,
        )

    def of_kind(self, kind: str) -> dict[str, float]:
        """The figures of a kind, such as 'calibration', by their names."""
        return {
            key[len(kind) + 1 :]: value
            for key, value in self.figures.items()
            if key.startswith(f'{kind}/')
        }

    def as_dict(self) -> dict:
        """All figures, for a JSON file."""
        return dict(
            routing=self.routing,
            figures=self.figures,
            all_experts=self.all_experts,
            confusion=asdict(self.confusion),
        )


def find(source: Source) -> Findings:
    """Compute what a report says.

    Args:
        source (Source): What it is made of.

    Returns:
        Findings: The figures.

    Raises:
        UserError: If the class counts do not fit the predictions.
    """
    stored, run = source.predictions, source.predictions.run
    groups = ClassGroups(run['class_counts'], run['thresholds'])
    routing, routed, all_experts, main = None, None, None, stored
    if stored.router_logits is not None:
        routing = _routing_thresholds(source, len(stored.router_logits))
        routed = route(stored, routing)
        if _routes(source):
            main, all_experts = routed, summarize(stored, groups)
    return Findings(
        source,
        main,
        routed,
        routing,
        summarize(main, groups),
        all_experts,
        group_confusion(main.pred_label, main.gt_label, groups),
    )


def _test_cfg(source: Source) -> dict:
    model = {} if source.config is None else source.config.get('model')
    options = (model or {}).get('test_cfg')
    return options if isinstance(options, dict) else {}


def _routes(source: Source) -> bool:
    """Whether the config has the model route. The config that a test with
    `--all-experts` dumps into the work_dir does not count."""
    options = _test_cfg(source)
    return options.get('mode') != 'ensemble' or options.get('expert_logits', False)


def _routing_thresholds(source: Source, num_routers: int) -> list[float]:
    threshold = _test_cfg(source).get('threshold', _THRESHOLD)
    single = isinstance(threshold, (int, float))
    values = [threshold] * num_routers if single else threshold
    if (
        not isinstance(values, (list, tuple))
        or len(values) != num_routers
        or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values)
    ):
        raise UserError(
            f'model.test_cfg.threshold={threshold!r} of the config: expected '
            'a probability, or one for each of the '
            f'{num_routers} routers of these predictions.'
        )
    return list(map(float, values))
