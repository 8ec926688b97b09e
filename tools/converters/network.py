"""The interface of an official network, such as a ResNet."""

from dataclasses import dataclass
from typing import Any, ClassVar

from key_table import State


@dataclass(frozen=True)
class Network:
    """A network, as far as the weights of its checkpoint determine it.

    A subclass describes an architecture and is listed in ``official_format``.

    Args:
        layout (NamedTuple): The parts on which the keys depend:
            ``num_experts``, ``trunk`` and ``tail`` (the shared stages and those
            of an expert, counted from 1), ``cosine`` (whether the classifiers
            are cosine classifiers) and ``table()``, which maps the official
            keys to ours.
        num_classes (int): Number of classes.
        out_channels (tuple[int]): Channels of each stage of an expert.
        topk (int, optional): Number of logits that the router takes; None
            without a router.
    """

    # Prefixes of keys by which the architecture is recognized in an official
    # checkpoint and in one of ride_mm.
    official_sign: ClassVar[str]
    our_sign: ClassVar[str]
    # Has the methods `of_official` and `of_ours`, which read a state dict.
    layout_type: ClassVar[type]

    layout: Any
    num_classes: int
    out_channels: tuple[int, ...]
    topk: int | None

    @classmethod
    def infer(cls, state: State) -> 'Network':
        """Infer the network from official keys and shapes.

        Raises:
            UserError: If ride_mm cannot build such a network.
        """
        raise NotImplementedError

    @property
    def name(self) -> str:
        """str: The common name, such as "ResNeXt-50"."""
        raise NotImplementedError

    @property
    def recipes(self) -> dict[int, str]:
        """dict[int, str]: Config file for each number of classes; the first one is
        also for all other numbers."""
        raise NotImplementedError

    def backbone(self) -> dict:
        """Config of the trunk."""
        raise NotImplementedError

    def neck(self) -> dict:
        """Options of ``MultiExpertNeck``, without ``num_experts``."""
        raise NotImplementedError

    def constants(self) -> State:
        """Buffers of the official checkpoint that have the same values in each."""
        return {}

    def official_settings(self) -> dict:
        """Settings that the official config needs.

        Raises:
            UserError: If the official code has no such network.
        """
        raise NotImplementedError

    def official_checkpoint(self, state: State) -> dict:
        """Content of an official checkpoint with these weights."""
        raise NotImplementedError

    def model(self) -> dict:
        """Config of the ``RIDEClassifier``, without losses."""
        classifier = dict(type='LinearClassifier')
        if self.layout.cosine:
            classifier = dict(type='CosineClassifier', scale=30)
        router = None
        if self.topk is not None:
            router = dict(type='ExpertRouter', topk=self.topk)
        return dict(
            type='RIDEClassifier',
            num_experts=self.layout.num_experts,
            backbone=self.backbone(),
            neck=dict(type='MultiExpertNeck', **self.neck()),
            head=dict(
                type='RIDEHead',
                num_classes=self.num_classes,
                in_channels=self.out_channels[-1],
                classifier=classifier,
                router=router,
            ),
        )

    @property
    def title(self) -> str:
        """str: Name and number of experts."""
        number = self.layout.num_experts
        return f'{self.name}, {number} expert' + 's' * (number > 1)

    def facts(self) -> list[tuple[str, str]]:
        """Names and values for the printed table."""
        layout = self.layout
        own = zip(layout.tail, self.out_channels)
        router = 'none'
        if self.topk is not None:
            router = f'trained, takes the {self.topk} largest logits'
        return [
            ('network', self.title),
            ('classes', str(self.num_classes)),
            ('shared stages', ', '.join(map(str, layout.trunk))),
            (
                'stages of an expert',
                ', '.join(f'{stage} ({channels} channels)' for stage, channels in own),
            ),
            ('classifier', 'cosine, scale 30' if layout.cosine else 'linear, with bias'),
            ('router', router),
        ]
