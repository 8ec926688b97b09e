"""Measure a training step: images per second and peak memory.

  ours      the runner of tools/train.py: its loader, hooks and log
  bare      only the model and the optimizer of the runner, on batches in
            memory: how much faster it is, is what loader, hooks and log cost
  single    one network of full width with a linear classifier and cross
            entropy, in the runner: what RIDE costs beside it
  cached    with --stage router: the runner with RouterCacheHook
  official  the authors' code with its own trainer and loader, as published:
            eager fp32; official-amp, official-amp-compiled and
            official-fp32-compiled are what it could do

Each (except bare) is a process of its own. They are warmed up, which includes
compilation, and measured in turn; ratios are computed within a round.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import harness
from harness import Process, load, set_single
from mmengine.config import Config
from official import Official, config_path

from ride_mm.engine import launch
from ride_mm.engine.config import find_hook
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


def our_steps(
    contender: str, variant: str, args: argparse.Namespace, work_dir: str
) -> tuple[dict[str, Iterator[int]], dict]:
    """Steps in the runner and, for 'ours', of its bare model; see :class:`Process`."""
    cfg = load(args.config, args.cfg_options, args.stage)
    if contender == 'single':
        set_single(cfg)
    if contender == 'cached':
        cfg.default_hooks.router_cache = dict(type='RouterCacheHook')
    set_variant(cfg, variant)
    set_endless(cfg, work_dir)
    runner = launch.build_runner(cfg)
    loop = runner.train_loop
    loop.run = lambda: runner.model  # runner.train only prepares what the steps need
    runner.train()
    kept: list[dict] = []

    def steps() -> Iterator[int]:
        runner.call_hook('before_train')
        while True:
            runner.call_hook('before_train_epoch')
            runner.model.train()
            for index, batch in enumerate(loop.dataloader):
                loop.run_iter(index, batch)
                if len(kept) < harness.WARM_UP:
                    kept.append(batch)
                yield len(batch['inputs'])

    def bare_steps() -> Iterator[int]:
        for batch in cycle(kept):
            runner.model.train_step(batch, runner.optim_wrapper)
            yield len(batch['inputs'])

    found = {contender: steps()}
    if contender == 'ours' and args.stage == 'experts':
        found['bare'] = bare_steps()
    return found, dict(parameters=sum(p.numel() for p in runner.model.parameters()))


def official_steps(
    contender: str, variant: str, args: argparse.Namespace, work_dir: str
) -> tuple[dict[str, Iterator[int]], dict]:
    """Steps of the authors' trainer; see :class:`Process`."""
    code = Official(args.official, load(args.config, args.cfg_options), args.device)
    facts = dict(patches=code.patches)
    return {contender: code.steps(variant, work_dir, facts)}, facts


def pairs(contenders: Sequence[str], variants: Sequence[str]) -> list[tuple[str, str]]:
    """Contenders with the variants that they have."""
    found = []
    for name in CONTENDERS:
        if name in contenders:
            name, _, own = name.partition('-')
            own_variants = [own or 'fp32'] if name == 'official' else variants
            found += [(name, variant) for variant in own_variants]
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
        help='what to measure (default: ours, bare, single and, with '
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
    """Check the arguments before any time is lost."""
    harness.check_arguments(args)
    cfg = load(args.config, args.cfg_options, args.stage)
    of_stage = ['ours', 'cached'] if args.stage == 'router' else ['ours', 'bare', 'single']
    if args.contenders is None:
        args.contenders = of_stage + ['official'] * bool(args.official)
    if any(name.startswith('official') for name in args.contenders):
        if args.official is None or args.stage == 'router':
            raise UserError('--contenders official needs --official PATH and --stage experts')
        config_path(args.official, cfg)
    if args.stage == 'router' and {'bare', 'single'} & {*args.contenders}:
        raise UserError('--stage router has the contenders ours and cached')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    keys = pairs(args.contenders, args.variant)
    skip = 2 * load(args.config, args.cfg_options, args.stage).train_dataloader.num_workers
    # The bare steps are those of the model of 'ours'.
    owners = {key: ('ours', key[1]) if key[0] == 'bare' else key for key in keys}
    processes: dict[tuple, Process] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, variant in dict.fromkeys(owners.values()):
                print(f'warming up {name} {variant}', flush=True)
                target = official_steps if name == 'official' else our_steps
                work_dir = f'{folder}/{name}-{variant}'
                processes[name, variant] = Process(
                    target, (name, variant, args, work_dir), Path(f'{work_dir}.log')
                )
            turns = harness.take_turns(
                {
                    key: partial(processes[owner].measure, key[0], args.seconds, skip)
                    for key, owner in owners.items()
                },
                args.rounds,
            )
        finally:
            for process in processes.values():
                process.close()
    patches = {}
    for key, owner in owners.items():
        facts = processes[owner].facts
        patches.update(facts.get('patches', {}))
        for turn in turns[key]:
            turn['parameters'] = facts['parameters']
    harness.finish(
        args,
        f'Training step, {Path(args.config).stem}, stage of the {args.stage}',
        ['contender', 'variant', 'images/s', f'x {" ".join(keys[0])}', 'peak memory (MiB)']
        + ['parameters'],
        rows_of(turns),
        patches=patches,
        turns={' '.join(key): value for key, value in turns.items()},
    )


if __name__ == '__main__':
    run_tool(main)
