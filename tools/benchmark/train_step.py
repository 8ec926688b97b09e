"""Measure a training step: images per second and peak memory.

Contenders are

  ours      the ordinary runner of tools/train.py: its loader, hooks and log
  bare      a bare PyTorch loop on the model of ours and in its process,
            batches in memory: what is missing to it is what the framework
            costs
  single    one full-width network with a linear classifier and cross
            entropy, in the ordinary runner: what RIDE costs
  official  the official code, its own trainer and loader, as published:
            eager fp32 (needs --official); official-amp, official-amp-compiled
            and official-fp32-compiled are what it could do

each but bare in a process of its own. They are warmed up, which includes
compiling, and then measured in turn, A B A B; ratios are taken within a round.
"""
import argparse
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
import results_file
import torch
import variants
from contest import Arena, Referee, ratio, spread, take_turns
from official import Official, check_clone, config_name, has_loader
from pace import Pace, PaceHook, count_parameters
from torch.utils.data import DataLoader, Dataset

from ride_mm.engine import launch
from ride_mm.engine.config import type_name
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/benchmark/train_step.py configs/ride_r32_cifar100_lt.py \\
      --variant fp32 amp-compiled --official ../RIDE-LongTailRecognition \\
      --json train_step.json
"""
_FASTER = ('official-amp', 'official-fp32-compiled', 'official-amp-compiled')
CONTENDERS = ('official', 'ours', 'bare', 'single', *_FASTER)
COSTS = dict(
    bare='time of ours / bare loop (what the framework costs)',
    single='time of ours / single network (what RIDE costs)')


def run_ours(referee: Referee, contender: str, variant: str, config: str,
             options: dict, synthetic: bool, device: str,
             work_dir: str) -> None:
    """Train in the ordinary runner, as tools/train.py does."""
    cfg = variants.load(config, options)
    if contender == 'single':
        variants.set_single(cfg)
    if synthetic:
        variants.set_synthetic(cfg)
    variants.set_variant(cfg, variant)
    variants.set_endless(cfg, work_dir)
    workers = cfg.train_dataloader.num_workers
    pace = Pace(referee, device, prefetched=2 * workers)
    runner = launch.build_runner(cfg)
    runner.register_hook(PaceHook(pace))
    runner.train()


def run_official(referee: Referee, variant: str, config: str, options: dict,
                 synthetic: bool, device: str, work_dir: str,
                 path: str) -> None:
    """Train with the official trainer."""
    cfg = variants.load(config, options)
    code = Official(path, device)
    workers = cfg.train_dataloader.num_workers
    if has_loader(type_name(cfg.train_dataloader.dataset)) and not synthetic:
        data = 'its own data loader'
        loader = code.loader(cfg, num_workers=workers)
    else:
        data = 'random images in its trainer'
        loader = RandomLoader(cfg, workers)
    pace = Pace(referee, device, prefetched=2 * workers)
    pace.info.update(config=config_name(cfg), data=data, patches=code.patches)

    def before(model):
        pace.info['parameters'] = count_parameters(model)

    code.train(cfg, variant, loader, work_dir, before, pace.step)


class RandomLoader(DataLoader):
    """Normalized images of noise, for a data set that the official code
    does not have.

    Args:
        cfg (Config): Our config.
        num_workers (int): Number of workers.
    """

    def __init__(self, cfg, num_workers: int) -> None:
        dataset = variants.SyntheticImages(
            variants.image_size(cfg), cfg.model.head.num_classes)
        super().__init__(
            _Normalized(dataset),
            cfg.train_dataloader.batch_size,
            shuffle=True,
            num_workers=num_workers)
        self.cls_num_list = dataset.metainfo['class_counts']


class _Normalized(Dataset):

    def __init__(self, dataset) -> None:
        self.labels = dataset.get_gt_labels()
        images = np.stack([dataset.get_data_info(i)['img'] for i in range(64)])
        self.images = torch.from_numpy(images).permute(
            0, 3, 1, 2).float().contiguous() / 128 - 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.images[index % len(self.images)], self.labels[index]


# ------------------------------------------------------------------- results


def pairs(contenders: Sequence[str], wanted: Sequence[str]) -> List[tuple]:
    """Contenders with the variants they have."""
    found = []
    for name in CONTENDERS:
        if name in contenders:
            own, _, variant = name.partition('-')
            found += [(own, variant or 'fp32')] if own == 'official' else [
                (name, variant) for variant in wanted
            ]
    return found


def images_per_second(turns: Sequence[dict]) -> List[float]:
    return [turn['images'] / turn['seconds'] for turn in turns]


def summarize(turns: Dict[tuple, List[dict]], infos: Dict[tuple, dict],
              memory: Dict[tuple, dict]) -> List[dict]:
    """One result for each contender and variant.

    The reference of the ratios is the official code or, without it, the
    first bare loop; without either, the first of all.
    """
    rates = {key: images_per_second(value) for key, value in turns.items()}
    names = [key[0] for key in rates]
    first = next((name for name in ('official', 'bare') if name in names),
                 names[0])
    reference = list(rates)[names.index(first)]
    return [
        dict(
            contender=key[0],
            variant=key[1],
            images_per_second=spread(rate),
            reference=' '.join(reference),
            ratio=ratio(rate, rates[reference]),
            turns=turns[key],
            **memory[key],
            **infos[key]) for key, rate in rates.items()
    ]


def conclude(results: List[dict]) -> List[dict]:
    """What the framework and RIDE cost, and memory beside the official one.
    """
    by_key = {(r['contender'], r['variant']): r for r in results}
    rates = {
        key: images_per_second(result['turns'])
        for key, result in by_key.items()
    }
    found = []

    def add(variant, what, costs):
        found.append(dict(variant=variant, what=what, ratio=costs))

    theirs = by_key.get(('official', 'fp32'), {}).get('step_memory_bytes')
    for variant in [key[1] for key in by_key if key[0] == 'ours']:
        ours = ('ours', variant)
        for name, what in COSTS.items():
            if (name, variant) in rates:
                add(variant, what, ratio(rates[name, variant], rates[ours]))
        if theirs:
            share = by_key[ours]['step_memory_bytes'] / theirs
            add(variant, 'memory of ours / official, as published',
                spread([share]))
    return found


def show(config: str, results: List[dict], conclusions: List[dict]) -> None:
    """Print what was found."""
    memory = {'memory of a step (MiB)': 'step_memory_bytes'}
    if any(result['reserved_memory_bytes'] for result in results):
        memory['of the GPU in all (MiB)'] = 'reserved_memory_bytes'
    results_file.print_table(
        f'Training step, {config}: median (smallest to largest round)', [
            'contender', 'variant', 'images/s', f"x {results[0]['reference']}",
            *memory, 'parameters'
        ], [[
            result['contender'], result['variant'],
            result['images_per_second'].text(), result['ratio'].text(2),
            *(_mebibytes(result[key])
              for key in memory.values()), f"{result['parameters']:,}"
        ] for result in results], 2)
    if conclusions:
        results_file.print_table('What it costs', ['variant', 'what', 'ratio'],
                                 [[
                                     conclusion['variant'], conclusion['what'],
                                     conclusion['ratio'].text(3)
                                 ] for conclusion in conclusions], 2)


def _mebibytes(size: Optional[int]) -> str:
    return '-' if size is None else f'{size / 2**20:,.0f}'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[
            results_file.rounds_arguments(),
            results_file.device_arguments(),
            results_file.common_arguments()
        ])
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--contenders',
        nargs='+',
        choices=CONTENDERS,
        metavar='NAME',
        help='whom to measure (default: ours, bare, single and, with '
        '--official, official)')
    parser.add_argument(
        '--variant',
        nargs='+',
        choices=variants.VARIANTS,
        default=['fp32'],
        metavar='NAME',
        help=f'among {", ".join(variants.VARIANTS)} (default: fp32)')
    parser.add_argument(
        '--synthetic',
        action='store_true',
        help='train on generated images instead of the data set')
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Find the mistakes of the user before any time is lost."""
    results_file.check_arguments(args)
    cfg = variants.load(args.config, args.cfg_options)
    if cfg.model.get('stage') == 'router':
        raise UserError(f'{args.config} trains the router: tools/benchmark/'
                        'stage2.py measures that.')
    if args.contenders is None:
        args.contenders = ['ours', 'bare', 'single']
        args.contenders += ['official'] if args.official else []
    if any(name.startswith('official') for name in args.contenders):
        if args.official is None:
            raise UserError('--contenders official needs --official PATH.')
        check_clone(args.official)
        config_name(cfg)


def process_of(key: tuple) -> tuple:
    """Whose process a contender is in."""
    name, variant = key
    return 'ours' if name == 'bare' else name, variant


def start(arena: Arena, args: argparse.Namespace, key: tuple):
    """Start a contender."""
    name, variant = key
    options = dict(
        variant=variant,
        config=args.config,
        options=args.cfg_options,
        synthetic=args.synthetic,
        device=args.device,
        work_dir=str(arena.folder / '-'.join(key)))
    if name == 'official':
        return arena.start(
            ' '.join(key), run_official, path=args.official, **options)
    return arena.start(' '.join(key), run_ours, contender=name, **options)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    check(args)
    keys = pairs(args.contenders, args.variant)
    with Arena(args.device, args.threads) as arena, \
            results_file.progress_bar() as progress:
        task = progress.add_task(
            'warming up', total=len(keys) * (args.rounds + 2))

        def advance():
            progress.advance(task)

        contenders = {}
        for key in keys:
            progress.update(task, description=f'warming up {" ".join(key)}')
            process = process_of(key)
            if process not in contenders:
                contenders[process] = start(arena, args, process)
            contenders[key] = contenders[process]
            advance()
        progress.update(task, description='measuring')

        def ask(key, **request):
            return contenders[key].ask(dict(request, bare=key[0] == 'bare'))

        turns = take_turns(
            {key: partial(ask, key, seconds=args.seconds)
             for key in keys}, args.rounds, advance)
        memory = {}
        for key in keys:
            memory[key] = ask(key, memory=True)
            advance()
    infos = {key: contender.info for key, contender in contenders.items()}
    results = summarize(turns, infos, memory)
    conclusions = conclude(results)
    show(Path(args.config).stem, results, conclusions)
    results_file.show_official(infos.values())
    results_file.finish('train_step', args,
                        dict(results=results, conclusions=conclusions))


if __name__ == '__main__':
    run_tool(main)
