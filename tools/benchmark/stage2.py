"""Measure the router's stage: plain, and with its inputs kept.

From the same checkpoint of stage 1 the router is trained with every seed
twice, each run in a process of its own: with the images going through the
frozen experts in every epoch, and with RouterCacheHook, which runs them once.
The routed accuracy is measured once, when the time has been taken.
"""
import argparse
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Dict, List, Optional, Sequence

import results_file
import variants
from contest import Arena, Referee, ratio
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook

from ride_mm.engine import launch
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/benchmark/stage2.py configs/ride_r32_cifar100_lt.py \\
      work_dirs/ride_r32_cifar100_lt/epoch_200.pth --json stage2.json
"""
CONTENDERS = ('plain', 'kept')
HOOK = 'RouterCacheHook'
# what the metrics call it, what it is called here
FIGURES = {
    'long_tail/overall': 'all',
    'long_tail/many': 'many',
    'long_tail/medium': 'medium',
    'long_tail/few': 'few',
    'experts/mean': 'experts',
    'experts/compute': 'compute',
}


class Clock(Hook):
    """Takes the time from the start of training to the end of each epoch.

    Args:
        begin (float): When the set-up began.
    """

    priority = 'HIGHEST'

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.times: Dict[str, float] = {}
        self.metrics: Dict[str, float] = {}

    def before_train(self, runner) -> None:
        self.train_begin = time.perf_counter()

    def after_train_epoch(self, runner) -> None:
        end = time.perf_counter()
        self.times = dict(
            training=end - self.train_begin, with_set_up=end - self.begin)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics = dict(metrics)


def prepare(cfg: Config, contender: str, seed: int, work_dir: str) -> None:
    """Set up a run of the router's stage, with one validation at its end.

    Args:
        cfg (Config): The config, changed in place.
        contender (str): One of ``CONTENDERS``.
        seed (int): Of the run.
        work_dir (str): Folder for the log.
    """
    kept = cfg.default_hooks.get('router_cache') or ConfigDict(type=HOOK)
    cfg.default_hooks.router_cache = kept if contender == 'kept' else None
    cfg.randomness.seed = seed
    cfg.work_dir, cfg.resume = work_dir, False
    cfg.train_cfg.val_begin = cfg.train_cfg.max_epochs
    cfg.train_cfg.val_interval = 1
    cfg.default_hooks.checkpoint = None
    launch.set_dataloader_defaults(cfg)
    launch.set_launcher(cfg, 'none')


def run(referee: Referee, config: str, checkpoint: str, options: dict,
        contender: str, seed: int, work_dir: str) -> None:
    """Train the router once."""
    cfg = variants.load(config, options, 'router')
    cfg.load_from = checkpoint
    prepare(cfg, contender, seed, work_dir)
    clock = Clock(time.perf_counter())
    runner = launch.build_runner(cfg)
    runner.register_hook(clock)
    runner.train()
    referee.exchange(dict(seconds=clock.times, metrics=clock.metrics))


# ------------------------------------------------------------------- results


def summarize(runs: Dict[str, List[dict]]) -> List[dict]:
    """Mean and deviation over seeds of each contender, and their difference.

    Args:
        runs (dict): By contender, one run for each seed.
    """
    columns = {name: _columns(found) for name, found in runs.items()}
    rows = dict(columns)
    rows['kept - plain'] = {
        key: [b - a for a, b in zip(columns['plain'][key], values)]
        for key, values in columns['kept'].items() if key in FIGURES.values()
    }
    return [
        dict(
            contender=name,
            figures={
                key:
                dict(
                    mean=mean(values),
                    deviation=stdev(values) if len(values) > 1 else None)
                for key, values in row.items()
            }) for name, row in rows.items()
    ]


def _columns(runs: List[dict]) -> Dict[str, List[float]]:
    columns = {
        key: [run['seconds'][key] for run in runs]
        for key in runs[0]['seconds']
    }
    for metric, key in FIGURES.items():
        if metric in runs[0]['metrics']:
            columns[key] = [run['metrics'][metric] for run in runs]
    return columns


def speed_up(runs: Dict[str, List[dict]]) -> Dict[str, object]:
    """Time of plain over that with kept inputs, seed by seed."""
    return {
        key:
        ratio([run['seconds'][key] for run in runs['plain']],
              [run['seconds'][key] for run in runs['kept']])
        for key in runs['plain'][0]['seconds']
    }


def show(config: str, seeds: Sequence[int], results: List[dict],
         faster: dict) -> None:
    """Print what was found."""
    heads = dict(
        training='training (s)',
        with_set_up='with set-up (s)',
        **{key: key
           for key in FIGURES.values()})
    heads = {
        key: head
        for key, head in heads.items() if key in results[0]['figures']
    }
    results_file.print_table(
        f'Router stage, {config}, {len(seeds)} seeds: mean and deviation; '
        'accuracy in %, experts of an image, compute (1 = all experts)',
        ['inputs of the router', *heads.values()], [[
            result['contender'], *(_cell(result['figures'].get(key))
                                   for key in heads)
        ] for result in results])
    results_file.print_lines('times as fast with kept inputs', [
        f"{faster['training'].text(1)} in training, "
        f"{faster['with_set_up'].text(1)} with set-up"
    ])


def _cell(figure: Optional[dict]) -> str:
    if figure is None:
        return ''
    text = f"{figure['mean']:.2f}"
    deviation = figure['deviation']
    return text if deviation is None else f'{text} ± {deviation:.2f}'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[
            results_file.device_arguments(),
            results_file.common_arguments()
        ])
    parser.add_argument('config', help='a config of two stages')
    parser.add_argument('checkpoint', help='a checkpoint of stage 1')
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        default=[0, 1, 2],
        metavar='N',
        help='seeds to train with (default: 0 1 2)')
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Find the mistakes of the user before any time is lost."""
    results_file.check_arguments(args)
    variants.load(args.config, args.cfg_options, 'router')
    launch.check_checkpoint_path(args.checkpoint)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    check(args)
    runs: Dict[str, List[dict]] = {name: [] for name in CONTENDERS}
    with Arena(args.device, args.threads) as arena, \
            results_file.progress_bar() as progress:
        task = progress.add_task(
            'training', total=len(args.seeds) * len(CONTENDERS))
        for seed in args.seeds:
            for name in CONTENDERS:
                label = f'{name}, seed {seed}'
                progress.update(task, description=label)
                contender = arena.start(
                    label,
                    run,
                    config=args.config,
                    checkpoint=args.checkpoint,
                    options=args.cfg_options,
                    contender=name,
                    seed=seed,
                    work_dir=str(arena.folder / f'{name}_{seed}'))
                contender.close()
                runs[name].append(dict(seed=seed, **contender.info))
                progress.advance(task)
    results, faster = summarize(runs), speed_up(runs)
    show(Path(args.config).stem, args.seeds, results, faster)
    results_file.finish('stage2', args,
                        dict(results=results, speed_up=faster, runs=runs))


if __name__ == '__main__':
    run_tool(main)
