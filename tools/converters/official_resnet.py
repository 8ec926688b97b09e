"""ResNets of the official repository: their keys, and what the keys tell."""
from typing import List, NamedTuple, Optional, Tuple

from key_table import Entry, State, count, size, transposed
from mmpretrain.registry import MODELS

from ride_mm.models.backbones.cifar_resnet import DEPTHS
from ride_mm.utils.errors import UserError

# The classes of the official `model/model.py`.
CLASSES = ('ResNet10Model', 'ResNet32Model', 'ResNet50Model', 'ResNet101Model',
           'ResNet152Model', 'ResNeXt50Model', 'ResNeXt152Model',
           'ResNet10EAModel', 'ResNet32EAModel', 'ResNet50EAModel',
           'ResNet152EAModel', 'ResNeXt50EAModel')
_ROUTER = 'backbone.expert_help_pred_'


class Layout(NamedTuple):
    """Which parts a network has: all that its names depend on.

    Args:
        num_experts (int): Number of experts.
        trunk (tuple[int]): The shared stages, counted from 1.
        tail (tuple[int]): The stages that each expert has of its own.
        cosine (bool): Whether the classifiers are cosines.
    """

    num_experts: int
    trunk: Tuple[int, ...]
    tail: Tuple[int, ...]
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
            # one network, cut where one of several experts would be
            stages = _stages(state, 'backbone.layer{}.')
            trunk, tail = stages[:-2], stages[-2:]
            first = 'backbone.linear.'
        return cls(
            max(num_experts, 1), trunk, tail, first + 'bias' not in state)

    @classmethod
    def of_ours(cls, state: State) -> 'Layout':
        """Read the layout from our keys."""
        return cls(
            count(state, 'head.classifiers.'),
            _stages(state, 'backbone.layer{}.'),
            _stages(state, 'neck.experts.0.layer{}.'),
            'head.classifiers.0.bias' not in state)

    def stage(self, stage: int, expert: int = 0) -> str:
        """What the official keys of a stage begin with."""
        own = self.num_experts > 1 and stage in self.tail
        return f'backbone.layer{stage}' + (f's.{expert}.' if own else '.')

    def classifier(self, expert: int = 0) -> str:
        """What the official keys of a classifier begin with."""
        several = self.num_experts > 1
        return 'backbone.linear' + (f's.{expert}.' if several else '.')

    def table(self) -> List[Entry]:
        """What the official keys are called here."""
        # The official cosine keeps its weights as (in, out).
        change = (transposed, transposed) if self.cosine else ()
        shared = ['backbone.conv1.', 'backbone.bn1.']
        shared += [self.stage(stage) for stage in self.trunk]
        table = [Entry(name, name) for name in shared]
        for e in range(self.num_experts):
            table += [
                Entry(self.stage(stage, e), f'neck.experts.{e}.layer{stage}.')
                for stage in self.tail
            ]
            table.append(
                Entry(self.classifier(e), f'head.classifiers.{e}.', *change))
        table.append(Entry(_ROUTER + 'hidden_fcs.', 'head.router.hidden_fcs.'))
        table.append(Entry(_ROUTER + 'fc.', 'head.router.fc.'))
        return table


def _stages(state: State, prefix: str) -> Tuple[int, ...]:
    return tuple(
        stage for stage in range(1, 5) if any(
            key.startswith(prefix.format(stage)) for key in state))


def _network(state: State, blocks: Tuple[int, ...],
             bottleneck: bool) -> Tuple[str, int]:
    """Family and depth, from the number of blocks in each stage."""
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
    raise UserError(f'its stages have {blocks} blocks, which is no ResNet of '
                    'the official code')


def _topk(state: State) -> Optional[int]:
    """Number of logits that the router looks at; None without a router."""
    if not any(key.startswith(_ROUTER) for key in state):
        return None
    if any(key.startswith(_ROUTER + 'fcs.') for key in state):
        raise UserError(
            'its router has a last layer for each expert '
            '(share_expert_help_pred_fc=False), ExpertRouter shares one: '
            'convert the checkpoint of the first stage and train the router '
            'here')
    return size(state, _ROUTER + 'fc.weight', 1) - size(
        state, _ROUTER + 'hidden_fcs.0.weight')


class ResNet(NamedTuple):
    """What the tensors tell about a ResNet of the official repository.

    Args:
        layout (Layout): Its parts.
        family (str): Registered type of the backbone.
        depth (int): Its depth.
        num_classes (int): Number of classes.
        out_channels (tuple[int]): Channels after each stage of an expert.
        expansion (int): By how much a block widens what is inside it.
        topk (int, optional): Logits that the router looks at; None without a
            router.
    """

    layout: Layout
    family: str
    depth: int
    num_classes: int
    out_channels: Tuple[int, ...]
    expansion: int
    topk: Optional[int]

    @classmethod
    def infer(cls, state: State) -> 'ResNet':
        """Tell the network from its official keys and their shapes.

        Raises:
            UserError: If it is none that can be built here.
        """
        layout = Layout.of_official(state)
        stages = layout.trunk + layout.tail
        blocks = tuple(count(state, layout.stage(stage)) for stage in stages)
        bottleneck = 'backbone.layer1.0.conv3.weight' in state
        family, depth = _network(state, blocks, bottleneck)
        last = '0.bn3.weight' if bottleneck else '0.bn2.weight'
        weight = layout.classifier() + 'weight'
        expansion = 4 if bottleneck else 1
        channels = {
            stage: size(state,
                        layout.stage(stage) + last)
            for stage in stages
        }
        if 3 in layout.trunk and channels[3] != 256 * expansion:
            raise UserError(
                f'its shared stage 3 (share_layer3=True) has {channels[3]} '
                f'channels; a trunk of mmpretrain has {256 * expansion} there')
        return cls(
            layout,
            family,
            depth,
            num_classes=size(state, weight, 1 if layout.cosine else 0),
            out_channels=tuple(channels[stage] for stage in layout.tail),
            expansion=expansion,
            topk=_topk(state))

    @property
    def name(self) -> str:
        """str: The usual name, such as "ResNeXt-50"."""
        family = 'ResNeXt' if self.family == 'ResNeXt' else 'ResNet'
        return f'{family}-{self.depth}'

    @property
    def title(self) -> str:
        """str: The network in a few words."""
        number = self.layout.num_experts
        return f'{self.name}, {number} expert' + 's' * (number > 1)

    def facts(self) -> List[Tuple[str, str]]:
        """What the network is, as names and values."""
        layout = self.layout
        router = 'none'
        if self.topk is not None:
            router = f'trained, looks at the {self.topk} largest logits'
        return [
            ('network', self.title),
            ('classes', str(self.num_classes)),
            ('shared stages', ', '.join(map(str, layout.trunk))),
            ('stages of an expert', ', '.join(
                f'{stage} ({channels} channels)'
                for stage, channels in zip(layout.tail, self.out_channels))),
            ('classifier',
             'cosine, scale 30' if layout.cosine else 'linear, with bias'),
            ('router', router),
        ]

    @property
    def is_cifar(self) -> bool:
        """bool: Whether it is the network for images of 32x32 pixels."""
        return self.family == 'CIFARResNet'

    def model(self) -> dict:
        """Config of the parts that the tensors belong to.

        Raises:
            UserError: If a trunk of the network cannot be configured here.
        """
        trunk = len(self.layout.trunk)
        width = (16 if self.is_cifar else 64) * 2**(trunk - 1)
        backbone = dict(type=self.family, depth=self.depth, num_stages=trunk)
        expert = dict(
            type='CIFARResNetExpert' if self.is_cifar else 'ResNetExpert',
            depth=self.depth,
            in_channels=width * self.expansion,
            stages=tuple(stage - 1 for stage in self.layout.tail),
            out_channels=self.out_channels)
        if not self.is_cifar:
            backbone.update(
                strides=(1, 2, 2)[:trunk],
                dilations=(1, ) * trunk,
                out_indices=(trunk - 1, ),
                zero_init_residual=False)
            expert.update(family=self.family)
        router = None
        if self.topk is not None:
            router = dict(type='ExpertRouter', topk=self.topk)
        return dict(
            type='RIDEClassifier',
            backbone=backbone,
            neck=dict(
                type='MultiExpertNeck',
                num_experts=self.layout.num_experts,
                expert=expert),
            head=dict(
                type='RIDEHead',
                num_classes=self.num_classes,
                in_channels=self.out_channels[-1],
                num_experts=self.layout.num_experts,
                classifier=dict(type='CosineClassifier', scale=30)
                if self.layout.cosine else dict(type='LinearClassifier'),
                router=router))

    def official_arch(self) -> dict:
        """What ``arch`` is to be in an official ``config.json``.

        Raises:
            UserError: If the official code has no such network.
        """
        layout = self.layout
        kind = self.name.replace(
            '-', '') + ('Model' if self.topk is None else 'EAModel')
        tails = [(2, 3) if self.is_cifar else (3, 4)]
        if self.family != 'ResNeXt' and layout.num_experts > 1:
            tails.append((4, ))
        if kind not in CLASSES or layout.tail not in tails:
            raise UserError(
                f'the official code has no {kind} whose experts have the '
                f'stages {layout.tail}; its models are {", ".join(CLASSES)}')
        if layout.cosine and (kind == 'ResNeXt152Model' or
                              (kind, layout.num_experts)
                              == ('ResNeXt50Model', 1)):
            raise UserError(
                f'the official {kind} with {layout.num_experts} experts has '
                'linear classifiers only, not cosines')
        args = dict(
            num_classes=self.num_classes, num_experts=layout.num_experts)
        for stage, channels in zip(layout.tail, self.out_channels):
            args[f'layer{stage}_output_dim'] = channels // self.expansion
        if 3 in layout.trunk:
            args['share_layer3'] = True
        if layout.cosine:
            args['use_norm'] = True
        if self.topk is not None:
            args['top_choices_num'] = self.topk
        return dict(type=kind, args=args)
