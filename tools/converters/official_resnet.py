"""ResNets of the official RIDE code."""

from dataclasses import dataclass
from typing import NamedTuple

from key_table import Entry, State, count, size, transposed
from mmpretrain.registry import MODELS
from network import Network

from ride_mm.models.backbones.cifar_resnet import DEPTHS
from ride_mm.utils.errors import UserError

# Classes in the official `model/model.py`.
CLASSES = (
    'ResNet10Model',
    'ResNet32Model',
    'ResNet50Model',
    'ResNet101Model',
    'ResNet152Model',
    'ResNeXt50Model',
    'ResNeXt152Model',
    'ResNet10EAModel',
    'ResNet32EAModel',
    'ResNet50EAModel',
    'ResNet152EAModel',
    'ResNeXt50EAModel',
)
_ROUTER = 'backbone.expert_help_pred_'


class Layout(NamedTuple):
    """The parts of a network on which its keys depend.

    Args:
        num_experts (int): Number of experts.
        trunk (tuple[int]): The shared stages, counted from 1.
        tail (tuple[int]): The stages of an expert, counted from 1.
        cosine (bool): Whether the classifiers are cosine classifiers.
    """

    num_experts: int
    trunk: tuple[int, ...]
    tail: tuple[int, ...]
    cosine: bool

    @classmethod
    def of_official(cls, state: State) -> 'Layout':
        """Read the layout from official keys."""
        num_experts = count(state, 'backbone.linears.')
        if num_experts:
            trunk = _stages(state, 'backbone.layer{}.')
            tail = _stages(state, 'backbone.layer{}s.')
            first = 'backbone.linears.0.'
        else:
            # A single network is cut where experts would begin.
            stages = _stages(state, 'backbone.layer{}.')
            trunk, tail = stages[:-2], stages[-2:]
            first = 'backbone.linear.'
        return cls(max(num_experts, 1), trunk, tail, first + 'bias' not in state)

    @classmethod
    def of_ours(cls, state: State) -> 'Layout':
        """Read the layout from our keys."""
        return cls(
            count(state, 'head.classifiers.'),
            _stages(state, 'backbone.layer{}.'),
            _stages(state, 'neck.experts.0.layer{}.'),
            'head.classifiers.0.bias' not in state,
        )

    def stage(self, stage: int, expert: int = 0) -> str:
        """Prefix of the official keys of a stage."""
        own = self.num_experts > 1 and stage in self.tail
        return f'backbone.layer{stage}' + (f's.{expert}.' if own else '.')

    def classifier(self, expert: int = 0) -> str:
        """Prefix of the official keys of a classifier."""
        several = self.num_experts > 1
        return 'backbone.linear' + (f's.{expert}.' if several else '.')

    def table(self) -> list[Entry]:
        """Map the official keys to ours."""
        # Official cosine classifiers store their weights as (in, out).
        change = (transposed, transposed) if self.cosine else ()
        shared = ['backbone.conv1.', 'backbone.bn1.']
        shared += [self.stage(stage) for stage in self.trunk]
        table = [Entry(name, name) for name in shared]
        for e in range(self.num_experts):
            table += [
                Entry(self.stage(stage, e), f'neck.experts.{e}.layer{stage}.')
                for stage in self.tail
            ]
            table.append(Entry(self.classifier(e), f'head.classifiers.{e}.', *change))
        table.append(Entry(_ROUTER + 'hidden_fcs.', 'head.router.hidden_fcs.'))
        table.append(Entry(_ROUTER + 'fc.', 'head.router.fc.'))
        return table


def _stages(state: State, prefix: str) -> tuple[int, ...]:
    return tuple(
        stage for stage in range(1, 5) if any(key.startswith(prefix.format(stage)) for key in state)
    )


def _network(state: State, blocks: tuple[int, ...], bottleneck: bool) -> tuple[str, int]:
    """Infer family and depth from the number of blocks of each stage."""
    if len(blocks) == 3:
        depth = 6 * blocks[0] + 2
        if len(set(blocks)) == 1 and depth in DEPTHS:
            return 'CIFARResNet', depth
    families = ['ResNet10', 'ResNet']
    if bottleneck:
        conv2 = 'backbone.layer1.0.conv2.weight'
        if size(state, conv2) != size(state, conv2, 1):
            families = ['ResNeXt']
    for family in families:
        settings = MODELS.get(family).arch_settings
        for depth, (block, numbers) in settings.items():
            is_bottleneck = block.__name__ == 'Bottleneck'
            if numbers == blocks and is_bottleneck == bottleneck:
                return family, depth
    raise UserError(f'its stages have {blocks} blocks, which no ResNet of the official code has')


def _topk(state: State) -> int | None:
    """Number of logits that the router takes; None without a router."""
    if not any(key.startswith(_ROUTER) for key in state):
        return None
    if any(key.startswith(_ROUTER + 'fcs.') for key in state):
        raise UserError(
            'its router has a last layer for each expert (share_expert_help_pred_fc=False), but '
            'ExpertRouter shares one: convert the checkpoint of the first stage and train the '
            'router with ride_mm'
        )
    return size(state, _ROUTER + 'fc.weight', 1) - size(state, _ROUTER + 'hidden_fcs.0.weight')


@dataclass(frozen=True)
class ResNet(Network):
    """A ResNet of the official RIDE code, see :class:`Network`.

    Args:
        family (str): Registered type of the backbone.
        depth (int): Depth of the backbone.
        expansion (int): Output channels of a block, divided by its inner ones.
    """

    official_sign = 'backbone.linear'
    our_sign = 'backbone.conv1.'
    layout_type = Layout

    family: str
    depth: int
    expansion: int

    @classmethod
    def infer(cls, state: State) -> 'ResNet':
        layout = Layout.of_official(state)
        stages = layout.trunk + layout.tail
        blocks = tuple(count(state, layout.stage(stage)) for stage in stages)
        bottleneck = 'backbone.layer1.0.conv3.weight' in state
        family, depth = _network(state, blocks, bottleneck)
        expansion = 4 if bottleneck else 1
        last = '0.bn3.weight' if bottleneck else '0.bn2.weight'
        channels = {stage: size(state, layout.stage(stage) + last) for stage in stages}
        if 3 in layout.trunk and channels[3] != 256 * expansion:
            raise UserError(
                f'its shared stage 3 (share_layer3=True) has {channels[3]} channels; a trunk of '
                f'mmpretrain has {256 * expansion} channels there'
            )
        weight = layout.classifier() + 'weight'
        return cls(
            layout,
            num_classes=size(state, weight, 1 if layout.cosine else 0),
            out_channels=tuple(channels[stage] for stage in layout.tail),
            topk=_topk(state),
            family=family,
            depth=depth,
            expansion=expansion,
        )

    @property
    def name(self) -> str:
        family = 'ResNeXt' if self.family == 'ResNeXt' else 'ResNet'
        return f'{family}-{self.depth}'

    @property
    def _is_cifar(self) -> bool:
        return self.family == 'CIFARResNet'

    @property
    def recipes(self) -> dict[int, str]:
        if self._is_cifar:
            return {100: 'ride_r32_cifar100_lt.py', 10: 'ride_r32_cifar10_lt.py'}
        size = dict(ResNet10='r10', ResNeXt='rx50').get(self.family, 'r50')
        return {
            1000: f'ride_{size}_imagenet_lt.py',
            8142: 'ride_r50_inaturalist2018.py',
            365: 'ride_r152_places_lt.py',
        }

    def backbone(self) -> dict:
        stages = len(self.layout.trunk)
        config = dict(type=self.family, depth=self.depth, num_stages=stages)
        if not self._is_cifar:
            config.update(
                strides=(1, 2, 2)[:stages],
                dilations=(1,) * stages,
                out_indices=(stages - 1,),
                zero_init_residual=False,
            )
        return config

    def neck(self) -> dict:
        width = (16 if self._is_cifar else 64) * self.expansion
        expert = dict(
            type='CIFARResNetExpert' if self._is_cifar else 'ResNetExpert',
            depth=self.depth,
            in_channels=width * 2 ** (len(self.layout.trunk) - 1),
            stages=tuple(stage - 1 for stage in self.layout.tail),
            out_channels=self.out_channels,
        )
        if not self._is_cifar:
            expert.update(family=self.family)
        return dict(expert=expert)

    def official_settings(self) -> dict:
        layout = self.layout
        kind = self._official_class()
        args = dict(num_classes=self.num_classes, num_experts=layout.num_experts)
        for stage, channels in zip(layout.tail, self.out_channels):
            args[f'layer{stage}_output_dim'] = channels // self.expansion
        if 3 in layout.trunk:
            args['share_layer3'] = True
        if layout.cosine:
            args['use_norm'] = True
        if self.topk is not None:
            args['top_choices_num'] = self.topk
        return dict(arch=dict(type=kind, args=args))

    def _official_class(self) -> str:
        layout = self.layout
        kind = self.name.replace('-', '') + ('Model' if self.topk is None else 'EAModel')
        tails = [(2, 3) if self._is_cifar else (3, 4)]
        if self.family != 'ResNeXt' and layout.num_experts > 1:
            tails.append((4,))
        if kind not in CLASSES or layout.tail not in tails:
            raise UserError(
                f'the official code has no {kind} whose experts have the stages {layout.tail}; its '
                f'models are {", ".join(CLASSES)}'
            )
        if layout.cosine and (
            kind == 'ResNeXt152Model' or (kind, layout.num_experts) == ('ResNeXt50Model', 1)
        ):
            raise UserError(
                f'the official {kind} with {layout.num_experts} experts has linear classifiers '
                'only, no cosine classifiers'
            )
        return kind

    def official_checkpoint(self, state: State) -> dict:
        return dict(arch=self._official_class(), state_dict=state)
