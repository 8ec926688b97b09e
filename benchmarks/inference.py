"""Measure inference: images per second, by batch size.

All experts, the routed model, a single network of full width and, with --compile,
--bundle and --official, the routed model compiled, exported and by the authors'
code are measured in turn; 'predict' includes making the DataSamples of MMPretrain.

With a checkpoint, the images are those of the test set and its router decides.
Without one, weights and images are random, and a fixed share of the images is
sent on (--usage), at the cost of real decisions. The authors' model sends on
the same share as ours. Time and compute (multiply-accumulates) are relative to
all experts; routing cannot save much more time than compute.
"""

import argparse
import io
import runpy
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

import harness
import mmcv.cnn
import numpy as np
import torch
from harness import load, set_single
from mmengine.runner import Runner
from mmpretrain import get_model
from official import Official, config_path
from torch import nn
from torch.utils.benchmark import Timer

from ride_mm.analysis.routing.compute import image_size
from ride_mm.engine import launch
from ride_mm.engine.config import positive
from ride_mm.models.macs import macs_by_experts, macs_by_part, relative_compute
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = (
    'python benchmarks/inference.py configs/ride_r32_cifar100_lt.py '
    'work_dirs/ride_r32_cifar100_lt/epoch_205.pth'
)
# Images that took 1, 2 and 3 experts on CIFAR-100-LT, in the paper (%).
_USAGE = (40.99, 9.47, 49.54)
_COUNTED = ('ensemble', 'routed', 'single')
_GOLDEN_RATIO = (5**0.5 - 1) / 2


class PlannedRouter(nn.Module):
    """A router that sends on fixed shares of images, at the cost of a real one.

    Multiples of the golden ratio, modulo 1, are spread evenly over the unit
    interval, so every batch has nearly the same shares.

    Args:
        router (nn.Module): Its decisions are computed and replaced.
        usage (Sequence[float]): Shares of the images that use 1, 2, ... E
            experts, in any unit.
    """

    trained = True

    def __init__(self, router: nn.Module | None, usage: Sequence[float]) -> None:
        super().__init__()
        self.router = router
        shares = torch.tensor(usage, dtype=torch.float64)
        self._ends = (shares.cumsum(0) / shares.sum())[:-1]
        self._images = 0

    def forward(self, index: int, *inputs: torch.Tensor) -> torch.Tensor:
        return self.decide(index, self.router(index, *inputs))

    def decide(self, index: int, logits: torch.Tensor) -> torch.Tensor:
        """Replace the logits of router ``index``, (N, ), by infinite ones; router
        0 begins a new batch."""
        if index == 0:
            images = self._images + torch.arange(len(logits), dtype=torch.float64)
            self._images += len(logits)
            self._used = 1 + torch.searchsorted(self._ends, images * _GOLDEN_RATIO % 1, right=True)
            self._used = self._used.to(logits.device)
        else:
            self._used = self._used[self._used > index]
        return torch.where(self._used > index + 1, torch.inf, -torch.inf)


def build(args: argparse.Namespace, name: str) -> nn.Module:
    """One of our models, in evaluation mode."""
    cfg = load(args.config, args.cfg_options)
    weights = None if name == 'single' else args.checkpoint
    if name == 'single':
        set_single(cfg)
    else:
        mode = 'ensemble' if name == 'ensemble' else 'route'
        cfg.model.test_cfg = dict(cfg.model.get('test_cfg') or {}, mode=mode)
    model = get_model(cfg, pretrained=weights, device=args.device)
    if args.fuse_conv_bn:
        mmcv.cnn.fuse_conv_bn(model)
    if name in ('routed', 'compiled') and weights is None:
        model.head.router = PlannedRouter(model.head.router, args.usage)
    if name == 'compiled':
        # The number of images that reach an expert varies.
        for part in (model.backbone, *model.neck.experts):
            part.compile(dynamic=True)
    return model


def load_images(args: argparse.Namespace, model: nn.Module, number: int) -> torch.Tensor:
    """Images in memory, (N, 3, H, W), ready for the network."""
    cfg = load(args.config, args.cfg_options)
    if args.checkpoint is None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(number, 3, *image_size(cfg), generator=generator)
        return images.to(args.device)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    # Lists may be sorted by class.
    chosen = np.linspace(0, len(loader.dataset) - 1, number).astype(int)
    batch = loader.collate_fn([loader.dataset[i] for i in chosen.tolist()])
    return model.data_preprocessor(batch)['inputs']


@torch.no_grad()
def compute_of(
    models: dict[str, nn.Module], images: torch.Tensor
) -> tuple[dict[str, float], list[float]]:
    """Multiply-accumulates of each model relative to all experts, and the
    shares of images that use 1, 2, ... E experts."""
    shape = tuple(images.shape[1:])
    macs = {name: macs_by_part(model, shape) for name, model in models.items() if name in _COUNTED}
    costs = relative_compute(macs['routed'], routed=True)
    used = models['routed'].infer(images)[1]
    usage = (torch.bincount(used, minlength=len(costs) + 1)[1:] / len(used)).tolist()
    routed = sum(share * cost for share, cost in zip(usage, costs))
    whole, single = (macs_by_experts(macs[x], routed=False)[-1] for x in ('ensemble', 'single'))
    compute = dict(ensemble=1.0, single=single / whole)
    return compute | dict.fromkeys(('routed', 'compiled', 'official'), routed), usage


def run_bundle(bundle, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores and experts used."""
    return bundle.predict(images.numpy())


def rows_of(
    size: int, times: dict[tuple, list[float]], compute: dict[str, float]
) -> list[list[str]]:
    """A row of the table for each model.

    Args:
        size (int): The batch size.
        times (dict): Seconds per batch in every round, by model and part.
        compute (dict): Compute of each model, relative to all experts.
    """
    rows = []
    for name, macs in compute.items():
        seconds = times.get((name, 'tensors'))
        if seconds is None:
            continue  # it is not measured
        ratio = harness.ratios(seconds, times['ensemble', 'tensors'])
        whole = times.get((name, 'predict'))
        row = [
            name,
            str(size),
            harness.spread([size / value for value in seconds]),
            f'{1e3 * median(seconds):.2f}',
            harness.spread(ratio, 2),
            f'{macs:.2f}',
            harness.spread([value / macs for value in ratio], 2),
            f'{size / median(whole):,.0f}' if whole else '-',
        ]
        if ('official', 'tensors') in times:
            row.append(harness.spread(harness.ratios(times['official', 'tensors'], seconds), 2))
        rows.append(row)
    return rows


def parse_usage(text: str) -> list[float]:
    try:
        usage = [float(share) for share in text.split(',')]
    except ValueError:
        usage = []
    if not usage or min(usage) < 0 or sum(usage) == 0:
        raise argparse.ArgumentTypeError(f'expected shares such as 41,9,50, found {text!r}')
    return usage


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = harness.make_parser(__doc__, EXAMPLE, seconds=2)
    parser.add_argument(
        'checkpoint', nargs='?', help='of a trained router (default: random weights)'
    )
    parser.add_argument(
        '--batch-sizes',
        nargs='+',
        type=positive,
        default=[1, 32, 512],
        metavar='N',
        help='default: 1 32 512',
    )
    parser.add_argument(
        '--fuse-conv-bn', action='store_true', help='fuse our models, as in tools/test.py'
    )
    parser.add_argument(
        '--compile', action='store_true', help='measure the routed model compiled as well'
    )
    parser.add_argument(
        '--bundle',
        nargs='+',
        default=[],
        metavar='DIR',
        help='bundles of tools/export.py with the weights of the checkpoint, to measure as well',
    )
    parser.add_argument(
        '--usage',
        type=parse_usage,
        default=_USAGE,
        metavar='SHARES',
        help='without a checkpoint, the shares of images that '
        'use 1, 2, ... experts (default: '
        f'{",".join(map(str, _USAGE))}, of the paper)',
    )
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Check the arguments before any time is lost."""
    harness.check_arguments(args)
    cfg = load(args.config, args.cfg_options)
    if cfg.model.head.get('router') is None:
        raise UserError(f'{args.config} has no model.head.router to route by')
    if args.checkpoint is not None:
        launch.check_checkpoint_path(args.checkpoint)
    elif args.bundle:
        raise UserError('--bundle needs the checkpoint that was exported')
    elif len(args.usage) != cfg.model.num_experts:
        raise UserError(
            f'--usage gives {len(args.usage)} shares, the model has {cfg.model.num_experts} experts'
        )
    if args.official:
        config_path(args.official, cfg, router=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    names = (*_COUNTED, *['compiled'] * args.compile)
    models = {name: build(args, name) for name in names}
    images = load_images(args, models['ensemble'], 2 * max(args.batch_sizes))
    compute, usage = compute_of(models, images)
    calls = {}
    for name, model in models.items():
        calls[name, 'tensors'] = model.infer
        calls[name, 'predict'] = model.predict
    for folder in args.bundle:
        bundle = runpy.run_path(str(Path(folder, 'predict.py')))['Bundle'](folder)
        calls[Path(folder).name, 'tensors'] = partial(run_bundle, bundle)
        compute[Path(folder).name] = compute['routed']
    code = None
    if args.official:
        code = Official(args.official, load(args.config, args.cfg_options), args.device)
        calls['official', 'tensors'] = code.routed_model(PlannedRouter(None, usage).decide)
    rows, found = [], []
    for size in args.batch_sizes:
        batches = cycle(images.split(size)[: len(images) // size])

        def measure(call):
            timer = Timer(
                'call(next(batches))',
                globals=dict(call=call, batches=batches),
                num_threads=torch.get_num_threads(),
            )
            return timer.blocked_autorange(min_run_time=args.seconds).median

        turns = {key: partial(measure, call) for key, call in calls.items()}
        # The authors' model prints what it does.
        with torch.no_grad(), redirect_stdout(io.StringIO()):
            times = harness.take_turns(turns, args.rounds)
        rows += rows_of(size, times, compute)
        found += [
            dict(model=name, part=part, batch_size=size, seconds=seconds)
            for (name, part), seconds in times.items()
        ]
    columns = ['model', 'batch', 'images/s', 'ms', 'time / all experts', 'compute / all experts']
    columns += ['time / compute', 'images/s of predict', *['x official'] * bool(args.official)]
    shares = ' / '.join(f'{100 * share:.1f} %' for share in usage)
    print(f'images that use 1, 2, ... experts: {shares}')
    harness.finish(
        args,
        f'Inference, {Path(args.config).stem}',
        columns,
        rows,
        turns=found,
        usage=usage,
        compute=compute,
        patches=code.patches if code else {},
    )


if __name__ == '__main__':
    run_tool(main)
