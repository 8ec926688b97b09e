"""Measure inference: images per second and latency, by size of the batch.

Contenders are the ensemble of all experts, the routed model, a single
full-width network and, with --official, the routed model of the official
code, each in a process of its own and measured in turn, A B A B.

With a checkpoint the images are those of the test set and the router decides.
Without one the weights are random, and so are the images; then a fixed share
of them is sent on (--usage), at the cost of a real decision. The official
model sends on the same share as ours.

The time of the routed model over that of the ensemble is shown beside the
ratio of their multiply-accumulates, which it cannot fall below by much.
"""
import argparse
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import mmcv.cnn
import numpy as np
import results_file
import torch
import variants
from contest import Arena, Referee, Spread, ratio, spread, take_turns
from machine import synchronize
from mmengine.runner import Runner
from mmpretrain import get_model
from official import Official, check_clone, config_name
from torch import nn

from ride_mm.engine import launch
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/benchmark/inference.py configs/ride_r32_cifar100_lt.py \\
      work_dirs/ride_r32_cifar100_lt/epoch_205.pth \\
      --official ../RIDE-LongTailRecognition --json inference.json
"""
# Images that took 1, 2 and 3 experts on CIFAR-100-LT, in the paper (%).
_USAGE = (40.99, 9.47, 49.54)
_LEAST_CALLS = 5
_GOLDEN_RATIO = (5**.5 - 1) / 2


class Plan:
    """How many experts each image is to use: fixed shares, well mixed.

    Multiples of the golden ratio, modulo 1, fill the interval evenly however
    few they are, so every batch has nearly the same shares.

    Args:
        usage (Sequence[float]): Shares of the images that use 1, 2, ... E
            experts, in any unit.
        device (str): "cpu" or "cuda".
    """

    def __init__(self, usage: Sequence[float], device: str) -> None:
        usage = torch.tensor(usage, dtype=torch.float64, device=device)
        self._ends = (usage.cumsum(0) / usage.sum())[:-1]
        self._images = 0
        self._counts = None

    def decide(self, index: int, logits: torch.Tensor) -> torch.Tensor:
        """Decide instead of router ``index``.

        Args:
            index (int): Which router; 0 begins a new batch.
            logits (torch.Tensor): Its decisions, (N, ).

        Returns:
            torch.Tensor: Infinite logits of the same shape.
        """
        if index == 0:
            images = self._images + torch.arange(
                len(logits), dtype=torch.float64, device=logits.device)
            self._images += len(logits)
            self._counts = 1 + torch.searchsorted(
                self._ends, images * _GOLDEN_RATIO % 1, right=True)
        else:
            self._counts = self._counts[self._counts > index]
        return torch.where(self._counts > index + 1, torch.inf, -torch.inf)


class PlannedRouter(nn.Module):
    """A router that decides by plan, at the cost of deciding itself.

    Args:
        router (nn.Module): The router.
        plan (Plan): The plan.
    """

    trained = True

    def __init__(self, router: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.router = router
        self.plan = plan

    def forward(self, index: int, feature: torch.Tensor,
                mean_logits: torch.Tensor) -> torch.Tensor:
        return self.plan.decide(index, self.router(index, feature,
                                                   mean_logits))


# ---------------------------------------------------------------- contenders


def load_images(cfg, model, checkpoint: Optional[str],
                number: int) -> torch.Tensor:
    """Images in memory, ready for the network.

    Args:
        cfg (Config): The config.
        model (nn.Module): The model.
        checkpoint (str, optional): If there is one, images of the test set.
        number (int): How many, N.

    Returns:
        torch.Tensor: (N, 3, H, W).
    """
    if checkpoint is None:
        generator = torch.Generator().manual_seed(0)
        size = variants.image_size(cfg)
        return torch.randn(number, 3, *size, generator=generator)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    # lists may be sorted by class
    chosen = np.linspace(0, len(loader.dataset) - 1, number).astype(int)
    batch = loader.collate_fn([loader.dataset[i] for i in chosen.tolist()])
    return model.data_preprocessor(batch)['inputs']


class Caller:
    """Calls functions on one batch after the other.

    Args:
        images (torch.Tensor): Images to take batches of, (N, 3, H, W).
        device (str): "cpu" or "cuda".
    """

    def __init__(self, images: torch.Tensor, device: str) -> None:
        self.images = images.to(device)
        self.device = device
        self._next = 0

    @torch.no_grad()
    def turn(self, function: Callable[[torch.Tensor], object], batch_size: int,
             seconds: float) -> List[float]:
        """Call a function again and again.

        Args:
            function (Callable): Takes images, (batch_size, 3, H, W).
            batch_size (int): Images of a batch.
            seconds (float): For how long.

        Returns:
            list[float]: Seconds of every call; the first one is left out.
        """
        times = []
        function(self._batch(batch_size))
        synchronize(self.device)
        end = time.perf_counter() + seconds
        while len(times) < _LEAST_CALLS or time.perf_counter() < end:
            batch = self._batch(batch_size)
            begin = time.perf_counter()
            function(batch)
            synchronize(self.device)
            times.append(time.perf_counter() - begin)
        return times

    def _batch(self, size: int) -> torch.Tensor:
        if self._next + size > len(self.images):
            self._next = 0
        self._next += size
        return self.images[self._next - size:self._next]


def run_ours(referee: Referee, contender: str, config: str,
             checkpoint: Optional[str], options: dict, usage: Sequence[float],
             fuse: bool, device: str, number: int) -> None:
    """Our ensemble, routed model or single network."""
    cfg = variants.load(config, options)
    if contender == 'single':
        variants.set_single(cfg)
        weights = None
    else:
        cfg.model.test_cfg = dict(
            cfg.model.get('test_cfg') or {},
            mode='route' if contender == 'routed' else 'ensemble')
        weights = checkpoint
    model = get_model(cfg, pretrained=weights, device=device)
    if fuse:
        mmcv.cnn.fuse_conv_bn(model)
    images = load_images(cfg, model, checkpoint, number)
    shape = tuple(images.shape[1:])
    info = dict(macs=total_macs(model, shape))
    caller = Caller(images, device)
    if contender == 'routed':
        compute = model.relative_compute(shape)
        if checkpoint is None:
            model.head.router = PlannedRouter(model.head.router,
                                              Plan(usage, device))
        info.update(used_experts(model, caller.images, compute))

    functions = dict(
        tensors=model.infer,
        predict=lambda batch: model(batch, mode='predict'))
    answer(referee, info, caller, functions)


def total_macs(model, shape: tuple) -> int:
    """Multiply-accumulates of all experts without a router."""
    macs = model.macs(shape)
    return macs['trunk'][0] + sum(macs['experts'])


@torch.no_grad()
def used_experts(model, images: torch.Tensor,
                 compute: Sequence[float]) -> dict:
    """How many experts images use, and their compute beside the ensemble's.
    """
    used = model.infer(images)[1]
    shares = torch.bincount(used, minlength=len(compute) + 1)[1:] / len(used)
    shares = shares.tolist()
    return dict(
        usage=shares, compute=sum(s * c for s, c in zip(shares, compute)))


def run_official(referee: Referee, path: str, config: str, options: dict,
                 usage: Sequence[float], device: str, number: int,
                 checkpoint: Optional[str]) -> None:
    """The routed model of the official code, on the same images."""
    cfg = variants.load(config, options)
    images = load_images(cfg,
                         get_model(cfg) if checkpoint else None, checkpoint,
                         number)
    code = Official(path, device)
    model = code.routed_model(cfg)
    code.plan_routing(model, Plan(usage, device).decide)
    info = dict(
        config=config_name(cfg, router=True),
        data='the same images',
        patches=code.patches)
    answer(referee, info, Caller(images, device), dict(tensors=model))


def answer(referee: Referee, info: dict, caller: Caller,
           functions: Dict[str, Callable]) -> None:
    """Measure what is asked for, for ever."""
    request = referee.exchange(info)
    while True:
        function = functions[request.pop('part')]
        request = referee.exchange(caller.turn(function, **request))


# ------------------------------------------------------------------- results


def summarize(batch_size: int, turns: Dict[str, List[List[float]]],
              whole: Dict[str, List[List[float]]],
              compute: Dict[str, float]) -> List[dict]:
    """One result for each contender.

    Args:
        batch_size (int): Images of a batch.
        turns (dict): Seconds of every call by contender and round, of the
            tensor part.
        whole (dict): The same of ``predict``, where there is one.
        compute (dict): Multiply-accumulates beside the ensemble's.

    Returns:
        list[dict]: Rates, latencies and ratios.
    """

    def per_image(calls):
        return [sum(times) / len(times) / batch_size for times in calls]

    seconds = {name: per_image(calls) for name, calls in turns.items()}
    results = []
    for name, calls in turns.items():
        latency = 1000 * np.concatenate(calls)
        time_ratio = ratio(seconds[name], seconds['ensemble'])
        rest = {}
        if name in whole:
            rest['predict_images_per_second'] = _rate(per_image(whole[name]))
            rest['predict_ms'] = np.round(1000 * np.concatenate(whole[name]),
                                          4).tolist()
        if 'official' in seconds:
            rest['speed_over_official'] = ratio(seconds['official'],
                                                seconds[name])
        results.append(
            dict(
                contender=name,
                batch_size=batch_size,
                images_per_second=_rate(seconds[name]),
                median_ms=float(np.median(latency)),
                p95_ms=float(np.percentile(latency, 95)),
                time_over_ensemble=time_ratio,
                compute_over_ensemble=compute[name],
                time_over_compute=Spread(*(getattr(time_ratio, key) /
                                           compute[name]
                                           for key in ('median', 'low',
                                                       'high'))),
                turns_ms=[[round(1000 * t, 4) for t in times]
                          for times in calls],
                **rest))
    return results


def _rate(seconds: Sequence[float]) -> Spread:
    return spread([1 / value for value in seconds])


def show(config: str, results: List[dict]) -> None:
    """Print what was found."""
    has_official = 'speed_over_official' in results[0]
    rows = [[
        result['contender'],
        str(result['batch_size']), result['images_per_second'].text(),
        f"{result['median_ms']:.2f}", f"{result['p95_ms']:.2f}",
        result['time_over_ensemble'].text(2),
        f"{result['compute_over_ensemble']:.2f}",
        result['time_over_compute'].text(2),
        *([result['speed_over_official'].text(2)] if has_official else []),
        (f"{result['predict_images_per_second'].median:,.0f}"
         if 'predict_ms' in result else '-')
    ] for result in results]
    results_file.print_table(
        f'Inference, {config}: median (smallest to largest round)', [
            'model', 'batch', 'images/s', 'ms', 'ms (p95)', 'time / ensemble',
            'compute / ensemble', 'time / compute',
            *(['x official'] if has_official else []),
            'images/s with DataSamples'
        ], rows)


def parse_usage(text: str) -> List[float]:
    try:
        usage = [float(share) for share in text.split(',')]
    except ValueError:
        usage = []
    if not usage or min(usage) < 0 or sum(usage) == 0:
        raise argparse.ArgumentTypeError(
            f'expected shares such as 41,9,50, found {text!r}')
    return usage


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[
            results_file.rounds_arguments(2),
            results_file.device_arguments(),
            results_file.common_arguments()
        ])
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='a checkpoint whose router is trained (default: random weights)')
    parser.add_argument(
        '--batch-sizes',
        nargs='+',
        type=results_file.positive,
        default=[1, 32, 512],
        metavar='N',
        help='images of a batch (default: 1 32 512)')
    parser.add_argument(
        '--fuse-conv-bn',
        action='store_true',
        help='put BatchNorm into the convolutions of our models, as '
        'tools/test.py does')
    parser.add_argument(
        '--usage',
        type=parse_usage,
        default=_USAGE,
        metavar='SHARES',
        help='without a checkpoint, the shares of images that use 1, 2, ... '
        f'experts (default: {",".join(map(str, _USAGE))}, of the paper)')
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Find the mistakes of the user before any time is lost."""
    results_file.check_arguments(args)
    cfg = variants.load(args.config, args.cfg_options)
    if cfg.model.head.get('router') is None:
        raise UserError(f'{args.config} has no model.head.router to route by.')
    experts = cfg.model.num_experts
    if args.checkpoint is not None:
        launch.check_checkpoint_path(args.checkpoint)
    elif len(args.usage) != experts:
        raise UserError(f'--usage gives {len(args.usage)} shares, the model '
                        f'has {experts} experts.')
    if args.official:
        check_clone(args.official)
        config_name(cfg, router=True)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    check(args)
    options = dict(
        config=args.config,
        checkpoint=args.checkpoint,
        options=args.cfg_options,
        device=args.device,
        number=2 * max(args.batch_sizes))
    with Arena(args.device, args.threads) as arena, \
            results_file.progress_bar() as progress:
        task = progress.add_task('warming up', total=None)
        contenders = {
            name:
            arena.start(
                name,
                run_ours,
                contender=name,
                usage=args.usage,
                fuse=args.fuse_conv_bn,
                **options)
            for name in ('ensemble', 'routed', 'single')
        }
        usage = contenders['routed'].info['usage']
        if args.official:
            contenders['official'] = arena.start(
                'official',
                run_official,
                path=args.official,
                usage=usage,
                **options)
        compute = relative_compute(contenders)
        turns = [(name, part) for name in contenders
                 for part in ('tensors', 'predict')
                 if (name, part) != ('official', 'predict')]
        progress.reset(
            task,
            description='measuring',
            total=len(args.batch_sizes) * len(turns) * args.rounds)
        results = []
        for size in args.batch_sizes:
            times = take_turns(
                {
                    (name, part):
                    lambda name=name, part=part: contenders[name].ask(
                        dict(part=part, batch_size=size, seconds=args.seconds))
                    for name, part in turns
                }, args.rounds, lambda: progress.advance(task))
            by_part = {
                wanted: {
                    name: calls
                    for (name, part), calls in times.items() if part == wanted
                }
                for wanted in ('tensors', 'predict')
            }
            results += summarize(size, by_part['tensors'], by_part['predict'],
                                 compute)
    show(Path(args.config).stem, results)
    percent = ' / '.join(f'{100 * share:.1f}' for share in usage)
    results_file.print_lines('images that use 1, 2, ... experts (%)',
                             [percent])
    infos = {name: one.info for name, one in contenders.items()}
    results_file.show_official(infos.values())
    results_file.finish('inference', args,
                        dict(results=results, contenders=infos))


def relative_compute(contenders: dict) -> Dict[str, float]:
    """Multiply-accumulates of the contenders beside the ensemble's."""
    routed = contenders['routed'].info['compute']
    everything = contenders['ensemble'].info['macs']
    return dict(
        ensemble=1.,
        routed=routed,
        single=contenders['single'].info['macs'] / everything,
        official=routed)


if __name__ == '__main__':
    run_tool(main)
