"""Measure data pipelines: images per second of a worker.

A worker reads and augments images and makes a batch of them. It is measured
in one process and one thread, without a model, and then with the configured
number of workers. Ours leaves normalization to the training process, the
official code has its workers do it: the rate with normalization counts it for
both. Several configs are compared with each other and, with --official, with
the official loader of the same data set, in turn, A B A B. What each stage of
a pipeline takes is shown besides.
"""
import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import cv2
import numpy as np
import results_file
import torch
import variants
from contest import Arena, Referee, ratio, spread, take_turns
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain import get_model
from mmpretrain.registry import DATASETS
from official import Official, check_clone, has_loader
from torch.utils.data import DataLoader

from ride_mm.datasets.draws import seed_draws, seed_everything
from ride_mm.engine import launch
from ride_mm.engine.config import type_name
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/benchmark/data.py configs/ride_r32_cifar100_lt.py \\
      --official ../RIDE-LongTailRecognition --json data.json
"""
PARTS = ('train', 'val')
KINDS = ('worker', 'normalized', 'loader')
_LEAST_BATCHES = 2
_FILES = 64


class Feed:
    """Endless batches of a data loader.

    Args:
        loader (DataLoader): The loader.
        after (Callable, optional): What else is done with each batch.
            Defaults to nothing.
    """

    def __init__(self,
                 loader: DataLoader,
                 after: Optional[Callable] = None) -> None:
        self._loader = loader
        self._after = after or (lambda batch: batch)
        self._batches = self._endless()

    def turn(self, seconds: float) -> dict:
        """Take batches for some seconds.

        Returns:
            dict: ``seconds`` and ``images``.
        """
        # what may have been loaded while others had their turn
        for _ in range(1 + 2 * self._loader.num_workers):
            next(self._batches)
        images, batches = 0, 0
        begin = time.perf_counter()
        end = begin + seconds
        while batches < _LEAST_BATCHES or time.perf_counter() < end:
            images += num_images(next(self._batches))
            batches += 1
        return dict(seconds=time.perf_counter() - begin, images=images)

    def _endless(self) -> Iterator:
        while True:
            for batch in self._loader:
                yield self._after(batch)


def num_images(batch) -> int:
    return len(batch['inputs'] if isinstance(batch, dict) else batch[0])


class Stopwatch:
    """Time by stage, of as many images as it was shown."""

    def __init__(self) -> None:
        self._seconds: Dict[str, float] = defaultdict(float)
        self._images = 0

    def call(self, stage: str, function: Callable, *args):
        begin = time.perf_counter()
        result = function(*args)
        self._seconds[stage] += time.perf_counter() - begin
        return result

    def count(self, images: int) -> None:
        self._images += images

    def microseconds(self) -> Dict[str, float]:
        """Of an image, by stage."""
        return {
            stage: 1e6 * seconds / self._images
            for stage, seconds in self._seconds.items()
        }


# ---------------------------------------------------------------- contenders


def load(config: str, options: dict, data_root: Optional[str]) -> Config:
    """Read a config as tools/train.py does; ``data_root`` replaces its own.
    """
    cfg = variants.load(config, options)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        if data_root is not None:
            loader.dataset.data_root = data_root
    launch.set_dataloader_defaults(cfg)
    return cfg


def run_ours(referee: Referee, config: str, options: dict,
             data_root: Optional[str]) -> None:
    """The pipelines of a config."""
    cfg = load(config, options, data_root)
    preprocessor = get_model(cfg, device='cpu').data_preprocessor

    def normalize(training):
        return lambda batch: preprocessor(batch, training)

    feeds, stages = {}, {}
    for part in PARTS:
        loader_cfg = cfg[f'{part}_dataloader']
        alone = build_loader(dict(loader_cfg, num_workers=0), part)
        feeds[part, 'worker'] = Feed(alone)
        feeds[part, 'normalized'] = Feed(
            build_loader(dict(loader_cfg, num_workers=0), part),
            normalize(part == 'train'))
        feeds[part, 'loader'] = Feed(build_loader(loader_cfg, part))
        stages[part] = our_stages(alone, normalize(part == 'train'))
    answer(referee, dict(workers=cfg.train_dataloader.num_workers), feeds,
           stages)


def build_loader(cfg: dict, part: str) -> DataLoader:
    """The data loader that trains or validates."""
    if not cfg['num_workers']:
        cfg.update(persistent_workers=False)
        cfg.pop('prefetch_factor', None)
    loader = Runner.build_dataloader(cfg, seed=0)
    if part == 'train':
        seed_draws(loader, 0)
    return loader


def our_stages(loader: DataLoader,
               normalize: Callable) -> Callable[[float], dict]:
    """What measures the stages of a pipeline of ours."""

    def measure(watch: Stopwatch, batch: Sequence[int]) -> None:
        dataset = loader.dataset
        samples = []
        for draw in batch:
            if hasattr(draw, 'seed'):
                watch.call('seed', seed_everything, draw.seed)
            sample = watch.call('read', dataset.get_data_info, int(draw))
            for transform in dataset.pipeline.transforms:
                sample = watch.call(
                    type(transform).__name__, transform, sample)
            samples.append(sample)
        whole = watch.call('collate', loader.collate_fn, samples)
        watch.call('normalize (in the training process)', normalize, whole)

    return lambda seconds: measure_stages(loader, measure, seconds)


def run_official(referee: Referee, path: str, config: str, options: dict,
                 data_root: Optional[str]) -> None:
    """The loader of the official code for the same data set."""
    cfg = load(config, options, data_root)
    code = Official(path, 'cpu')
    workers = cfg.train_dataloader.num_workers
    feeds, stages = {}, {}
    for kind, number in (('worker', 0), ('loader', workers)):
        train = code.loader(cfg, num_workers=number)
        val = DataLoader(train.val_dataset, **train.init_kwargs)
        for part, loader in (('train', train), ('val', val)):
            feeds[part, kind] = Feed(loader)
            stages.setdefault(part, their_stages(loader))
    for part in PARTS:
        feeds[part, 'normalized'] = feeds[part, 'worker']
    info = dict(
        workers=workers,
        config=type(train).__name__,
        data='the same images',
        patches=code.patches)
    answer(referee, info, feeds, stages)


def their_stages(loader: DataLoader) -> Callable[[float], dict]:
    """What measures the stages of a pipeline of the official code."""
    dataset = loader.dataset

    def measure(watch: Stopwatch, batch: Sequence[int]) -> None:
        transforms, dataset.transform = dataset.transform, None
        samples = []
        for index in batch:
            image, label = watch.call('read', dataset.__getitem__, index)
            for transform in transforms.transforms:
                image = watch.call(type(transform).__name__, transform, image)
            samples.append((image, label))
        watch.call('collate', loader.collate_fn, samples)
        dataset.transform = transforms

    return lambda seconds: measure_stages(loader, measure, seconds)


def measure_stages(loader: DataLoader, measure: Callable,
                   seconds: float) -> Dict[str, float]:
    """Microseconds of an image by stage; the first batch is left out."""
    watch = None
    end = time.perf_counter() + seconds
    for number, batch in enumerate(loader.batch_sampler):
        if number > _LEAST_BATCHES and time.perf_counter() > end:
            break
        if number <= 1:
            watch = Stopwatch()
        measure(watch, batch)
        watch.count(len(batch))
    return watch.microseconds()


def answer(referee: Referee, info: dict, feeds: Dict[tuple, Feed],
           stages: Dict[str, Callable]) -> None:
    """Measure what is asked for, for ever."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    request = referee.exchange(info)
    while True:
        part, kind, seconds = request
        turn = stages[part] if kind == 'stages' else feeds[part, kind].turn
        request = referee.exchange(turn(seconds))


# ------------------------------------------------------------ generated files


def write_synthetic(cfg: Config, folder: Path) -> None:
    """Write a data set of lists with generated JPEG files.

    They are as large as those of ImageNet usually are: 500 x 375 pixels and
    about 100 kB.

    Args:
        cfg (Config): The config, for its data set.
        folder (Path): Where to write to.

    Raises:
        UserError: If the data set has no lists.
    """
    kind = DATASETS.get(cfg.train_dataloader.dataset.type)
    if not hasattr(kind, 'benchmark_classes'):
        raise UserError('--synthetic is for ImageNetLT, PlacesLT and '
                        f'INaturalist2018, not for {kind.__name__}.')
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(_FILES):
        coarse = rng.integers(256, size=(24, 32, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
        image = (image + rng.normal(0, 8, image.shape)).clip(0, 255)
        cv2.imwrite(
            str(folder / f'{number}.jpg'), image.astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 90])
    lines = [f'{i % _FILES}.jpg {i}\n' for i in range(kind.benchmark_classes)]
    for split in kind.splits:
        (folder / f'{kind.name}_{split}.txt').write_text(''.join(lines))


# ------------------------------------------------------------------- results


def rates(turns: Sequence[dict]) -> List[float]:
    return [turn['images'] / turn['seconds'] for turn in turns]


def summarize(turns: Dict[tuple, List[dict]],
              reference: Dict[str, str]) -> List[dict]:
    """One result for each contender, part and kind.

    Args:
        turns (dict): By contender, part and kind.
        reference (dict): The contender that each is compared with.
    """
    results = []
    for (name, part, kind), own in turns.items():
        if kind == 'stages':
            continue
        other = turns[reference[name], part, kind]
        results.append(
            dict(
                contender=name,
                part=part,
                kind=kind,
                images_per_second=spread(rates(own)),
                reference=reference[name],
                ratio=ratio(rates(own), rates(other)),
                turns=own))
    return results


def summarize_stages(turns: Dict[tuple, list]) -> List[dict]:
    """One result for each contender, part and stage."""
    return [
        dict(
            contender=name,
            part=part,
            stage=stage,
            microseconds=spread([turn[stage] for turn in own]))
        for (name, part, kind), own in turns.items() if kind == 'stages'
        for stage in own[0]
    ]


def show(results: List[dict], stages: List[dict], infos: Dict[str,
                                                              dict]) -> None:
    """Print what was found."""
    by_key = {(r['contender'], r['part'], r['kind']): r for r in results}
    rows = []
    for name, info in infos.items():
        for part in PARTS:
            row = [name, part, str(info['workers'])]
            for kind in KINDS:
                result = by_key[name, part, kind]
                row += [
                    result['images_per_second'].text(), result['ratio'].text(2)
                ]
            rows.append(row)
    heads = ['images/s of a worker', 'normalized as well', 'of all workers']
    results_file.print_table(
        'Data pipelines: images/s, median (smallest to largest round)',
        ['pipeline', 'part', 'workers'] +
        [text for head in heads for text in (head, 'x reference')], rows, 2)
    results_file.print_lines('reference',
                             dict.fromkeys(r['reference'] for r in results))
    results_file.print_table('Stages',
                             ['pipeline', 'part', 'stage', 'us an image'], [[
                                 found['contender'], found['part'],
                                 found['stage'], found['microseconds'].text(1)
                             ] for found in stages], 3)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[
            results_file.rounds_arguments(2),
            results_file.common_arguments()
        ])
    parser.set_defaults(device='cpu', threads=1)
    parser.add_argument('configs', nargs='+', help='the config files')
    parser.add_argument(
        '--synthetic',
        action='store_true',
        help='generate JPEG files instead of ImageNet-LT and its like')
    return parser.parse_args(argv)


def names(paths: Sequence[str]) -> Dict[str, str]:
    """Configs by a name for tables: without folder where that is enough."""
    stems = [Path(path).stem for path in paths]
    return {
        stem if stems.count(stem) == 1 else path: path
        for stem, path in zip(stems, paths)
    }


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    results_file.check_arguments(args)
    if args.official:
        check_clone(args.official)
    configs = names(args.configs)
    with Arena('cpu', 1) as arena, results_file.progress_bar() as progress:
        task = progress.add_task('reading data', total=None)
        contenders, reference = {}, {}
        for name, path in configs.items():
            cfg = variants.load(path, args.cfg_options)
            data_root = None
            if args.synthetic:
                data_root = arena.folder / f'{name}_images'
                write_synthetic(cfg, data_root)
            options = dict(
                config=path,
                options=args.cfg_options,
                data_root=data_root and str(data_root))
            contenders[name] = arena.start(name, run_ours, **options)
            reference[name] = next(iter(configs))
            data = type_name(cfg.train_dataloader.dataset)
            theirs = f'official {data}'
            if args.official and has_loader(data):
                reference[name] = theirs
                if theirs not in contenders:
                    reference[theirs] = theirs
                    contenders[theirs] = arena.start(
                        theirs, run_official, path=args.official, **options)
        progress.reset(
            task,
            description='measuring',
            total=len(contenders) * len(PARTS) * (len(KINDS) + 1) *
            args.rounds)
        turns = take_turns(
            {
                (name, part, kind):
                lambda one=one, part=part, kind=kind: one.ask(
                    (part, kind, args.seconds))
                for part in PARTS
                for kind in (*KINDS, 'stages')
                for name, one in contenders.items()
            }, args.rounds, lambda: progress.advance(task))
    infos = {name: one.info for name, one in contenders.items()}
    results = summarize(turns, reference)
    stages = summarize_stages(turns)
    show(results, stages, infos)
    results_file.show_official(infos.values())
    results_file.finish('data', args,
                        dict(results=results, stages=stages, contenders=infos))


if __name__ == '__main__':
    run_tool(main)
