"""Ask the official code for the answers that the converters are tested by.

    git clone https://github.com/frank-xwang/RIDE-LongTailRecognition
    git clone https://github.com/TonyLianLong/RIDE-Swin-LongTailRecognition
    python tests/official/make_answers.py \\
        --official RIDE-LongTailRecognition \\
        --swin RIDE-Swin-LongTailRecognition

Without a GPU. What is patched in it to run today is printed.
"""

import argparse
import contextlib
import importlib
import io
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import draws
import torch
from torch import nn

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
# A decision this far from a tie is the same on every machine.
MARGIN = 0.1


class Case(NamedTuple):
    """A network to ask: a class of the official code and its options."""

    name: str
    kind: str
    args: dict
    images: int = 2


_REDUCED = dict(use_norm=True, reduce_dimension=True)
_ROUTED = dict(_REDUCED, num_experts=3, top_choices_num=5)
CASES = [
    Case('r32', 'ResNet32Model', dict()),
    Case('r32_cosine', 'ResNet32Model', dict(use_norm=True)),
    Case('r32_2_linear', 'ResNet32Model', dict(num_experts=2)),
    Case('r32_4', 'ResNet32Model', dict(_REDUCED, num_experts=4)),
    Case('r32_ea', 'ResNet32EAModel', _ROUTED, 8),
    Case('r32_ea_linear', 'ResNet32EAModel', dict(num_experts=2, top_choices_num=20), 8),
    Case('r10', 'ResNet10Model', dict(use_norm=True)),
    Case('r10_3', 'ResNet10Model', dict(_REDUCED, num_experts=3)),
    Case('r10_shared', 'ResNet10Model', dict(num_experts=2, use_norm=True, share_layer3=True)),
    Case('r10_ea', 'ResNet10EAModel', _ROUTED, 4),
    Case('r50', 'ResNet50Model', dict()),
    Case('r50_2', 'ResNet50Model', dict(_REDUCED, num_experts=2)),
    Case('r50_ea', 'ResNet50EAModel', _ROUTED, 3),
    Case('rx50', 'ResNeXt50Model', dict()),
    Case('rx50_2', 'ResNeXt50Model', dict(num_experts=2, use_norm=True)),
    Case('rx50_ea', 'ResNeXt50EAModel', _ROUTED, 3),
    Case('r101', 'ResNet101Model', dict()),
    Case('r101_2', 'ResNet101Model', dict(_REDUCED, num_experts=2)),
    Case('r152', 'ResNet152Model', dict()),
    Case('r152_2', 'ResNet152Model', dict(_REDUCED, num_experts=2)),
    Case('r152_ea', 'ResNet152EAModel', dict(_ROUTED, num_experts=2)),
    Case('rx152', 'ResNeXt152Model', dict()),
    Case('rx152_2', 'ResNeXt152Model', dict(num_experts=2, reduce_dimension=True)),
]
_SMALL = dict(depths=[2, 2, 18, 2], num_heads=[3, 6, 12, 24], use_normed_linear=True)
SWIN_CASES = [
    Case('swin_t', 'SwinTransformer', dict(use_normed_linear=True)),
    Case('swin_t_2', 'SwinTransformer', dict(num_experts=2, use_normed_linear=True)),
    Case(
        'swin_t_2_linear', 'SwinTransformer', dict(num_experts=2, force_original_feature_dim=True)
    ),
    Case('swin_s_3', 'SwinTransformer', dict(_SMALL, num_experts=3)),
]


class _BoolMasks:
    """PyTorch, where a mask is bool."""

    uint8 = torch.bool

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def import_official(path: str) -> None:
    """Make the official code importable; say what is patched in it."""
    sys.path.insert(0, str(TOOLS / 'benchmark'))
    from official import Official, Patch, check_clone

    check_clone(path)
    patches = Official(path, 'cpu').patches
    importlib.import_module('model.fb_resnets.EAResNet').torch = _BoolMasks()
    patches.append(Patch('EAResNet.torch.uint8', 'PyTorch takes no such masks any more'))
    for patch in patches:
        print(f'patched {patch.name}: {patch.why}')


def import_swin(path: str) -> None:
    """Make the network of RIDE-Swin importable, without all around it."""
    try:
        import timm.models.layers  # noqa: F401
    except ImportError:
        layers = types.ModuleType('timm.models.layers')
        layers.DropPath = lambda rate: nn.Identity()
        layers.to_2tuple = nn.modules.utils._pair
        layers.trunc_normal_ = nn.init.trunc_normal_
        for name in ('timm', 'timm.models', 'timm.models.layers'):
            sys.modules[name] = layers
        print('patched timm: not installed; nothing of it matters here')
    sys.path.insert(0, str(Path(path, 'models').resolve()))


class Asked:
    """A network of the official code with drawn weights."""

    def __init__(self, case: Case) -> None:
        args = dict(num_classes=draws.NUM_CLASSES, **case.args)
        self.arch = dict(type=case.kind, args=args)
        if case in SWIN_CASES:
            module = importlib.import_module('swin_transformer')
            self.model = self.backbone = module.SwinTransformer(**args)
            self.classifiers = list(self.model.heads)
            # a part of its loss, not of its answer
            self.scale = 30 if args.get('use_normed_linear') else 1
            self.answer_scale = self.scale
        else:
            module = importlib.import_module('model.model')
            self.model = getattr(module, case.kind)(**args)
            self.backbone = self.model.backbone
            single = [getattr(self.backbone, 'linear', None)]
            self.classifiers = list(getattr(self.backbone, 'linears', single))
            # a single ResNeXt has none
            self.scale = getattr(self.backbone, 's', 1)
            self.answer_scale = 1
        self.model.eval()
        own = self.model.state_dict()
        self.shapes = {key: list(value.shape) for key, value in own.items()}
        self.constants = {
            draws.constant_name(key, value.shape): value.numpy()
            for key, value in own.items()
            if draws.constant_name(key, value.shape) is not None
        }
        self.size = 32 if '32' in case.kind else 224
        self.images = draws.draw_images(case.images, self.size)
        self.draw(0)

    def draw(self, router_seed: int) -> None:
        self.router_seed = router_seed
        drawn = draws.draw_state(self.shapes, router_seed)
        missing, extra = self.model.load_state_dict(drawn, strict=False)
        assert not extra and len(missing) + len(drawn) == len(self.shapes)

    def logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every expert, (E, N, K), and of the ensemble, (N, K)."""
        found = []
        hooks = [
            classifier.register_forward_hook(lambda module, inputs, output: found.append(output))
            for classifier in self.classifiers
        ]
        ensemble = self._run()
        for hook in hooks:
            hook.remove()
        return torch.stack(found) * self.scale, ensemble * self.answer_scale

    def _run(self) -> torch.Tensor:
        if not hasattr(self.model, 'confidence_model'):
            return self.model(self.images)
        # with labels it runs all experts on all images
        target = torch.zeros(len(self.images), dtype=torch.long)
        return self.model(self.images, target=target)[0]

    def route(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The routed answer, (N, K), and experts used, (N, )."""
        routed, used = self.model(self.images)
        return routed, used.flatten()

    def choose_router(self) -> None:
        """Draw routers until images stop at every expert."""
        asked: list[tuple] = []
        predict = self.backbone.pred_expert_help

        def listen(inputs, index):
            asked.append((inputs, index))
            return predict(inputs, index)

        self.backbone.pred_expert_help = listen
        self._run()
        del self.backbone.pred_expert_help
        asked = [((feature.clone(), logits.clone()), index) for (feature, logits), index in asked]
        for seed in range(1000):
            self._draw_router(seed)
            decisions = torch.stack([predict(*arguments).flatten() for arguments in asked])
            used = 1 + (decisions > 0).cumprod(0).sum(0)
            everywhere = len(used.unique()) == min(len(used), len(asked) + 1)
            if everywhere and decisions.abs().min() > MARGIN:
                return self.draw(seed)
        raise RuntimeError(f'no router of {self.arch} divides the images')

    def _draw_router(self, seed: int) -> None:
        shapes = {k: v for k, v in self.shapes.items() if draws.is_router(k)}
        self.model.load_state_dict(draws.draw_state(shapes, seed), strict=False)


@torch.no_grad()
def ask(case: Case) -> draws.Answers:
    """Let the official code answer."""
    network = Asked(case)
    answers = {}
    if hasattr(network.model, 'confidence_model'):
        network.choose_router()
        routed, used = network.route()
        assert len(used.unique()) > 1
        answers = dict(routed=routed.numpy(), num_experts=used.numpy())
    logits, ensemble = network.logits()
    return draws.Answers(
        arch=network.arch,
        shapes=network.shapes,
        router_seed=network.router_seed,
        size=network.size,
        drawn=draws.drawn(network.shapes, network.size),
        logits=logits.numpy(),
        ensemble=ensemble.numpy(),
        constants=network.constants,
        **answers,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--official', required=True, help='a clone of the official code')
    parser.add_argument('--swin', required=True, help='a clone of RIDE-Swin')
    parser.add_argument('--only', nargs='+', help='names of the answers to make')
    args = parser.parse_args(argv)

    import_official(args.official)
    import_swin(args.swin)
    draws.FOLDER.mkdir(exist_ok=True)
    for case in CASES + SWIN_CASES:
        if args.only is None or case.name in args.only:
            with contextlib.redirect_stdout(io.StringIO()):
                answers = ask(case)
            answers.save(case.name)
            print(
                f'{case.name}: experts used {answers.num_experts}, largest '
                f'logit {abs(answers.logits).max():.2f}'
            )


if __name__ == '__main__':
    main()
