"""What the official networks have in common."""

from dataclasses import dataclass
from typing import Any, ClassVar

from key_table import Entry, State


@dataclass(frozen=True)
class Network:
    """What the tensors of a checkpoint tell.

    Another architecture is a subclass, listed in ``official_format``.

    Args:
        layout (NamedTuple): Its parts, all that its names depend on:
            ``num_experts``, ``trunk`` and ``tail`` (the shared stages and an
            expert's own, counted from 1), ``cosine`` (the kind of
            classifiers), and ``table()``, the names.
        num_classes (int): Number of classes.
        out_channels (tuple[int]): Channels of each stage of an expert.
        topk (int, optional): Logits that the router looks at; None without a
            router.
    """

    # What keys there and here begin with, and what reads the layout.
    official_sign: ClassVar[str]
    our_sign: ClassVar[str]
    layout_type: ClassVar[type]

    layout: Any
    num_classes: int
    out_channels: tuple[int, ...]
    topk: int | None

    @classmethod
    def infer(cls, state: State) -> 'Network':
        """Tell the network from its official keys and their shapes.

        Raises:
            UserError: If it is none that can be built here.
        """
        raise NotImplementedError

    @property
    def name(self) -> str:
        """str: The usual name, such as "ResNeXt-50"."""
        raise NotImplementedError

    @property
    def recipes(self) -> dict[int, str]:
        """dict[int, str]: Our configs by the number of classes; the first is
        for all other numbers."""
        raise NotImplementedError

    def backbone(self) -> dict:
        """Config of the trunk."""
        raise NotImplementedError

    def neck(self) -> dict:
        """Config of the experts, less their number."""
        raise NotImplementedError

    def constants(self) -> State:
        """What the official code saves though it follows from the rest."""
        return {}

    def official_settings(self) -> dict:
        """What the official code's config has to say.

        Raises:
            UserError: If the official code has no such network.
        """
        raise NotImplementedError

    def official_checkpoint(self, state: State) -> dict:
        """What the official code reads."""
        raise NotImplementedError

    def model(self) -> dict:
        """Config of a ``RIDEClassifier``, as far as the tensors tell."""
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

    def table(self) -> list[Entry]:
        """What the official keys are called here."""
        return self.layout.table()

    @property
    def title(self) -> str:
        """str: The network in a few words."""
        number = self.layout.num_experts
        return f'{self.name}, {number} expert' + 's' * (number > 1)

    def facts(self) -> list[tuple[str, str]]:
        """What the network is, as names and values."""
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
