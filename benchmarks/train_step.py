"""Measure a training step: images per second and peak memory.

  ours      the runner of tools/train.py: its loader, hooks and log
  bare      a plain PyTorch loop on the same model, batches in memory; what it
            is faster is what the framework costs
  single    one network of full width with a linear classifier and cross
            entropy, in the runner: what RIDE costs beside it
  cached    with --stage router: the runner with RouterCacheHook
  official  the authors' code with its own trainer and loader, as published:
            eager fp32; official-amp, official-amp-compiled and
            official-fp32-compiled are what it could do

Each (but bare) is a process of its own. They are warmed up, compiling
included, and measured in turn; ratios are taken within a round.
"""

import argparse
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import harness
import torch
from harness import Turns, Worker
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from official import Official, check_clone, config_name, full_width

from ride_mm.engine import launch
from ride_mm.engine.config import find_hook, is_ride
from ride_mm.engine.schedule import load_training
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = (
    'python benchmarks/train_step.py configs/ride_r32_cifar100_lt.py --variant fp32 amp-compiled'
)
VARIANTS = ('fp32', 'fp32-compiled', 'amp', 'amp-compiled')
CONTENDERS = (
    'official',
    'ours',
    'bare',
    'single',
    'cached',
    *(f'official-{variant}' for variant in VARIANTS[1:]),
)
_ENDLESS = 10**6  # epochs


def load(path: str, options: dict, stage: str = 'experts') -> Config:
    """Read a config of RIDE for one stage.

    Raises:
        UserError: If the model is another one, or has no such stage.
    """
    cfg = load_training(path, options, stage='router' if stage == 'router' else None)
    if not is_ride(cfg):
        raise UserError(f'{path}: the benchmarks are for model.type="RIDEClassifier"')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def set_variant(cfg: Config, variant: str) -> None:
    """Set precision and compilation, as ``--amp`` and ``compile=True`` do."""
    precision, _, compiled = variant.partition('-')
    cfg.model.compile = bool(compiled) and (cfg.model.get('compile') or True)
    if precision == 'amp':
        launch.enable_amp(cfg)
    else:
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)


def set_endless(cfg: Config, work_dir: str) -> None:
    """Train without an end, validation and checkpoints."""
    cfg.work_dir, cfg.load_from, cfg.resume = work_dir, None, False
    cfg.train_cfg.max_epochs = _ENDLESS
    two_stage = find_hook(cfg, 'TwoStageHook')
    if two_stage is not None:
        two_stage.begin = _ENDLESS - 1
    cfg.default_hooks.checkpoint = None
    launch.disable_validation(cfg)
    launch.set_dataloader_defaults(cfg)
    launch.set_launcher(cfg, 'none')


def set_single(cfg: Config) -> None:
    """Make of RIDE the network that it is compared with."""
    neck, head = cfg.model.neck, cfg.model.head
    cfg.model.num_experts = 1
    neck.expert.out_channels = full_width(cfg)
    head.in_channels = full_width(cfg)[-1]
    head.classifier = ConfigDict(type='LinearClassifier')
    head.loss = ConfigDict(type='CrossEntropyLoss')
    head.diversity = head.router = cfg.model.test_cfg = None
    cfg.default_hooks.two_stage = None


class BareLoop:
    """Steps of a plain PyTorch loop on what the runner has built.

    Args:
        runner (Runner): Has the model, the optimizer and the loader.
    """

    def __init__(self, runner) -> None:
        self._model, self._wrapper = runner.model, runner.optim_wrapper
        self._device = next(self._model.parameters()).device.type
        self._amp = hasattr(self._wrapper, 'loss_scaler')
        self._scaler = torch.amp.GradScaler(
            self._device, enabled=self._amp and self._device == 'cuda'
        )
        self._batches: list[dict] = []
        self._endless = cycle(self._batches)

    def keep(self, batch: dict) -> None:
        """Keep the first batches, to go round in them."""
        if len(self._batches) < harness.WARM_UP:
            self._batches.append(self._model.data_preprocessor(batch, training=True))

    def step(self) -> int:
        """Take a step.

        Returns:
            int: How many images it had.
        """
        batch, wrapper = next(self._endless), self._wrapper
        with torch.autocast(self._device, getattr(wrapper, 'cast_dtype', None), enabled=self._amp):
            loss = sum(self._model(**batch, mode='loss').values())
        self._scaler.scale(loss).backward()
        self._scaler.step(wrapper.optimizer)
        self._scaler.update()
        wrapper.optimizer.zero_grad()
        return len(batch['data_samples'])


def run_ours(pipe, contender: str, variant: str, args: argparse.Namespace, work_dir: str) -> None:
    """Train in the runner, and take the turns of the bare loop as well."""
    cfg = load(args.config, args.cfg_options, args.stage)
    if contender == 'single':
        set_single(cfg)
    if contender == 'cached':
        cfg.default_hooks.router_cache = dict(type='RouterCacheHook')
    set_variant(cfg, variant)
    set_endless(cfg, work_dir)
    turns = Turns(pipe, args.device, 2 * cfg.train_dataloader.num_workers)
    runner = launch.build_runner(cfg)
    loop = runner.build_train_loop(runner._train_loop)

    def run() -> None:
        runner.call_hook('before_train')
        turns.info['parameters'] = count_parameters(runner.model)
        bare = BareLoop(runner)
        while True:
            runner.call_hook('before_train_epoch')
            runner.model.train()
            for index, batch in enumerate(loop.dataloader):
                while turns.wanted == 'bare':
                    turns.after_step(bare.step())
                loop.run_iter(index, batch)
                if contender == 'ours' and args.stage == 'experts':
                    bare.keep(batch)
                turns.after_step(len(batch['inputs']))

    loop.run, runner._train_loop = run, loop
    runner.train()


def run_official(pipe, variant: str, args: argparse.Namespace, work_dir: str) -> None:
    """Train with the authors' trainer."""
    cfg = load(args.config, args.cfg_options)
    code = Official(args.official, args.device)
    workers = cfg.train_dataloader.num_workers
    turns = Turns(pipe, args.device, 2 * workers)
    turns.info['patches'] = code.patches

    def before(model: torch.nn.Module) -> None:
        turns.info['parameters'] = count_parameters(model)

    code.train(cfg, variant, work_dir, before, turns.after_step)


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def pairs(contenders: Sequence[str], variants: Sequence[str]) -> list[tuple]:
    """Contenders with the variants that they have."""
    found = []
    for name in CONTENDERS:
        if name in contenders:
            name, _, own = name.partition('-')
            found += [
                (name, variant) for variant in ([own or 'fp32'] if name == 'official' else variants)
            ]
    return found


def rows_of(turns: dict[tuple, list[dict]]) -> list[list[str]]:
    """A row of the table for each contender and variant; the ratios are to
    the first."""
    rates = {key: harness.rates(value) for key, value in turns.items()}
    reference = next(iter(rates.values()))
    return [
        [
            *key,
            harness.spread(rate),
            harness.spread(harness.ratios(rate, reference), 2),
            f'{max(turn["memory_bytes"] for turn in turns[key]) / 2**20:,.0f}',
            f'{turns[key][0]["parameters"]:,}',
        ]
        for key, rate in rates.items()
    ]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = harness.make_parser(__doc__, EXAMPLE, seconds=5)
    parser.add_argument(
        '--stage',
        choices=['experts', 'router'],
        default='experts',
        help='which stage (default: experts)',
    )
    parser.add_argument(
        '--contenders',
        nargs='+',
        choices=CONTENDERS,
        metavar='NAME',
        help='whom to measure (default: ours, bare, single and, with '
        '--official, official; for the router ours and cached)',
    )
    parser.add_argument(
        '--variant',
        nargs='+',
        choices=VARIANTS,
        default=['fp32'],
        metavar='NAME',
        help=f'among {", ".join(VARIANTS)} (default: fp32)',
    )
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Find the mistakes of the user before any time is lost."""
    harness.check_arguments(args)
    cfg = load(args.config, args.cfg_options, args.stage)
    if args.contenders is None:
        args.contenders = (
            ['ours', 'cached'] if args.stage == 'router' else ['ours', 'bare', 'single']
        )
        args.contenders += ['official'] * bool(args.official)
    if any(name.startswith('official') for name in args.contenders):
        if args.official is None or args.stage == 'router':
            raise UserError('--contenders official needs --official PATH and --stage experts')
        check_clone(args.official)
        config_name(cfg)
    if args.stage == 'router' and {'bare', 'single'} & {*args.contenders}:
        raise UserError('--stage router has the contenders ours and cached')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    keys = pairs(args.contenders, args.variant)
    workers: dict[tuple, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, variant in keys:
                own = 'ours' if name == 'bare' else name
                if (own, variant) in workers:
                    continue
                print(f'warming up {own} {variant}', flush=True)
                target = run_official if own == 'official' else run_ours
                options = (variant, args, f'{folder}/{own}-{variant}')
                workers[own, variant] = Worker(
                    f'{own} {variant}',
                    target,
                    options if own == 'official' else (own, *options),
                    args.threads,
                    Path(folder, f'{len(workers)}.log'),
                )

            def turn(name: str, variant: str):
                worker = workers['ours' if name == 'bare' else name, variant]
                return lambda: worker.ask(name, args.seconds)

            turns = harness.take_turns({key: turn(*key) for key in keys}, args.rounds)
        finally:
            for worker in workers.values():
                worker.close()
    harness.print_table(
        f'Training step, {Path(args.config).stem}, stage of the {args.stage}: '
        'median (smallest to largest round)',
        [
            'contender',
            'variant',
            'images/s',
            f'x {" ".join(keys[0])}',
            'peak memory (MiB)',
            'parameters',
        ],
        rows_of(turns),
    )
    harness.finish(
        args,
        patches=turns[keys[0]][0].get('patches', {}),
        turns={
            ' '.join(key): [
                {name: turn[name] for name in ('seconds', 'images', 'memory_bytes', 'parameters')}
                for turn in value
            ]
            for key, value in turns.items()
        },
    )


if __name__ == '__main__':
    run_tool(main)
