"""Give damaged and hostile files to the readers of ride_mm.

    python tests/stress/fuzz_files.py --inputs 1000 --seed 0

Files that a run has written are changed in a bit, cut off, replaced by other
files, and loaded again with fields dropped, of another type or of another
shape. Every input has to be refused in one line, or accepted rightly: a
checkpoint as it was saved, a resumed run from a whole checkpoint, predictions
with fields that fit each other. No code that a file holds may run. The table
counts what became of the inputs; the exit status is 1 if anything was bad.
"""

import argparse
import copy
import json
import logging
import pickle
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from outcomes import Outcomes, try_input
from prediction_files import write_predictions

from ride_mm.analysis import RoutingSimulator, read_predictions
from ride_mm.analysis.accuracy.hardest import hardest_images
from ride_mm.analysis.accuracy.summary import summarize
from ride_mm.analysis.comparison.runs import read_runs
from ride_mm.analysis.predictions import read_own_predictions
from ride_mm.analysis.report.findings import find
from ride_mm.analysis.report.overview import describe_config
from ride_mm.analysis.report.source import open_source
from ride_mm.analysis.routing.tradeoff import route
from ride_mm.datasets import CIFAR10LT
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine.dumped_config import read_dumped_config
from ride_mm.engine.scalars import read_curves
from ride_mm.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES, NUM_CLASSES, NUM_EXPERTS = 12, 10, 3
COUNTS = [500, 300, 200, 150, 90, 60, 40, 10, 8, 5]


class Input(NamedTuple):
    """A file, what reads it, and what is wrong with a result."""

    kind: str
    name: str
    call: Callable[[], Any]
    wrong: Callable[[Any], str | None]


class Hostile:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), 'w')


class Fuzzer:
    """Makes inputs.

    Args:
        folder (Path): A folder to work in.
        seed (int): Of all choices.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.trace = folder / 'trace'
        # what may stand in the place of anything else
        self.odd = [
            None,
            True,
            -1,
            0,
            99,
            10**9,
            10**30,
            1.5,
            -0.5,
            float('nan'),
            float('inf'),
            '',
            'text',
            'os.system',
            'a\nb',
            b'bytes',
            [],
            [1],
            (),
            {},
            {'type': 'os.system'},
            np.float32(0.5),
            np.zeros((0,)),
            np.array(['a']),
            np.array([[np.nan]]),
            torch.tensor(3),
            torch.zeros(0),
            torch.ones(2, 2, 2),
            torch.full((10,), torch.nan),
        ]

    # ------------------------------------------------------------- changes

    def bytes_changed(self, content: bytes, tail: float = 0.5) -> tuple:
        """Change bytes, near the end with a probability of ``tail``."""
        data, kind = bytearray(content), self.rng.choice(['bit', 'bits', 'cut'])
        if kind == 'cut':
            place = self.rng.randrange(len(data))
            return f'cut at {place}', bytes(data[:place])
        places = []
        for _ in range(1 if kind == 'bit' else self.rng.randint(2, 9)):
            low = len(data) - 9000 if self.rng.random() < tail else 0
            place = self.rng.randrange(max(0, low), len(data))
            bit = self.rng.randrange(8)
            data[place] ^= 1 << bit
            places.append(f'{place}.{bit}')
        return 'bits ' + ' '.join(places), bytes(data)

    def field_changed(self, content: Any) -> str:
        """Drop a field of nested dicts and lists, or put something else in
        its place. ``content`` is changed."""
        path = []
        while True:
            keys = list(content) if isinstance(content, dict) else list(range(len(content)))
            key = self.rng.choice(keys)
            path.append(key)
            inner = content[key]
            if not isinstance(inner, (dict, list)) or not inner or (self.rng.random() < 0.35):
                break
            content = inner
        name = '.'.join(map(str, path))
        change = self.rng.choice(['drop', 'odd', 'odd', 'shape', 'values'])
        value = content[key]
        if change == 'drop':
            del content[key]
        elif change == 'shape' and isinstance(value, torch.Tensor):
            content[key] = self.rng.choice(
                [
                    value.repeat(2, *[1] * (value.ndim - 1)) if value.ndim else value.repeat(2),
                    value[None],
                    value.flatten()[1:],
                    value.reshape(-1, 1),
                ]
            )
        elif change == 'values' and isinstance(value, torch.Tensor):
            content[key] = self.rng.choice(
                [
                    -value,
                    value * torch.nan,
                    value * 1e30,
                    value.to(torch.int64),
                    value.to(torch.complex64),
                    value.half(),
                    value.to(torch.bool),
                ]
            )
        else:
            change = 'odd'
            content[key] = copy.deepcopy(self.rng.choice(self.odd))
        found = ' '.join(repr(content[key]).split()) if change != 'drop' else ''
        return f'{change} {name} {found:.60}'

    def other_file(self, path: Path) -> str:
        """Put another file, or a folder, in the place of one."""
        path.unlink(missing_ok=True)
        kind = self.rng.choice(
            [
                'folder',
                'empty',
                'noise',
                'text',
                'zip',
                'list',
                'module',
                'tensor',
                'hostile pickle',
                'hostile torch',
                'plain pickle',
                'legacy',
                'npz',
                'weights',
            ]
        )
        if kind == 'folder':
            path.mkdir()
        elif kind == 'empty':
            path.touch()
        elif kind == 'noise':
            path.write_bytes(self.rng.randbytes(self.rng.randint(1, 5000)))
        elif kind == 'text':
            path.write_text('version https://git-lfs.github.com/spec/v1\n')
        elif kind == 'zip':
            archive = shutil.make_archive(str(self.folder / 'zip'), 'zip', ROOT / 'tests/stress')
            shutil.move(archive, path)
        elif kind == 'hostile pickle':
            path.write_bytes(pickle.dumps([Hostile(self.trace)], self.rng.randint(0, 5)))
        elif kind == 'plain pickle':
            path.write_bytes(
                pickle.dumps(
                    self.rng.choice([[], {}, [1], [{}], 'a', [[{}]]]), self.rng.randint(0, 5)
                )
            )
        elif kind == 'npz':
            with path.open('wb') as file:
                np.savez(file, a=np.zeros(3))
        else:
            content = (
                dict(
                    list=[1],
                    module=torch.nn.Linear(1, 1),
                    tensor=torch.ones(3),
                    weights={'a.weight': torch.ones(2)},
                    legacy=dict(state_dict={'a': torch.ones(1)}, meta={}),
                )[kind]
                if kind != 'hostile torch'
                else dict(state_dict={}, meta=Hostile(self.trace))
            )
            torch.save(content, path, _use_new_zipfile_serialization=kind != 'legacy')
        return kind

    # --------------------------------------------------------- checkpoints

    def checkpoints(self) -> Iterator[Input]:
        """Load and resume checkpoints of a run."""
        run = _Run(self.folder / 'run')
        newest, content = run.newest, run.newest.read_bytes()
        while True:
            change = self.rng.choice(['bytes', 'bytes', 'other', 'field'])
            if newest.is_dir():
                newest.rmdir()
            if change == 'bytes':
                name, changed = self.bytes_changed(content)
                newest.write_bytes(changed)
            elif change == 'other':
                name = self.other_file(newest)
            else:
                changed = copy.deepcopy(run.saved[2])
                name = self.field_changed(changed)
                torch.save(changed, newest)
            # what is changed within a whole file may be meant
            run.means(changed if change == 'field' else {})
            if change != 'field':
                yield Input(
                    f'checkpoint, {change}, loaded', name, partial(_load, newest), run.not_saved
                )
            else:
                yield Input('checkpoint, field, tested', name, run.test, run.not_meant)
            yield Input(f'checkpoint, {change}, resumed', name, run.resume, run.not_resumed)

    # --------------------------------------------------------- predictions

    def predictions(self) -> Iterator[Input]:
        """Read predictions, and compute all that a report says of them."""
        whole, file = self.folder / 'whole.npz', self.folder / 'fuzzed.npz'
        write_predictions(whole, make_samples(), **RUN)
        content = whole.read_bytes()
        with np.load(whole) as archive:
            run = json.loads(str(archive['run']))
            arrays = {k: torch.from_numpy(v) for k, v in archive.items() if k != 'run'}
            arrays['run'] = run
        while True:
            change = self.rng.choice(['bytes', 'other', 'field', 'field'])
            if file.is_dir():
                file.rmdir()
            if change == 'bytes':
                name, changed = self.bytes_changed(content, tail=0)
                file.write_bytes(changed)
            elif change == 'other':
                name = self.other_file(file)
            else:
                changed = copy.deepcopy(arrays)
                name = self.field_changed(changed)
                if 'run' in changed:
                    changed['run'] = json.dumps(changed['run'], default=str)
                with file.open('wb') as opened:
                    np.savez(opened, **{k: _as_array(v) for k, v in changed.items()})
            yield Input(f'predictions, {change}', name, partial(_read, file, whole), _misfit)

    # ------------------------------------------------------------ work_dirs

    def work_dirs(self) -> Iterator[Input]:
        """Read the config and the log that a training has left."""
        whole = self.folder / 'run'
        config = min(whole.glob('*/vis_data/config.py'))
        log = config.with_name('scalars.json')
        log.write_text(
            '{"loss": 1.5, "epoch": 1, "iter": 3, "step": 3}\n'
            '{"long_tail/overall": 12.5, "step": 1}\n'
        )
        texts = {path: path.read_text() for path in (config, log)}
        code = f'open({str(self.trace)!r}, "w")'
        while True:
            path = self.rng.choice([config, config, log])
            lines = texts[path].splitlines()
            place = self.rng.randrange(len(lines))
            change = self.rng.choice(['code', 'drop', 'value', 'bytes'])
            if change == 'code':
                lines.insert(place, self.rng.choice([code, f'x = {code}', f'import os; {code}']))
            elif change == 'drop':
                del lines[place]
            elif change == 'value':
                before, sign, _ = lines[place].partition('=')
                odd = self.rng.choice([code, 'None', '[1]', '"a"', '1e999', ''])
                lines[place] = f'{before}{sign}{odd},'
            data = '\n'.join(lines).encode()
            name = f'{change} in line {place + 1} of {path.name}'
            if change == 'bytes':
                name, data = self.bytes_changed(data, tail=0)
                name = f'{path.name}: {name}'
            path.write_bytes(data)
            yield Input('work_dir', name, partial(_describe, whole, config), lambda _: None)
            path.write_text(texts[path])

    # ---------------------------------------------------------------- CIFAR

    def cifar(self) -> Iterator[Input]:
        """Read the files of CIFAR-10 without asking for their checksums."""
        folder = self.folder / 'cifar-10-batches-py'
        folder.mkdir()
        batch = dict(data=np.zeros((20, 3072), np.uint8), labels=[i % 10 for i in range(20)])
        for name in ('test_batch', *(f'data_batch_{i}' for i in range(1, 6))):
            (folder / name).write_bytes(pickle.dumps(batch))
        file, content = folder / 'test_batch', pickle.dumps(batch, 2)
        while True:
            change = self.rng.choice(['bytes', 'other', 'field'])
            if file.is_dir():
                file.rmdir()
            if change == 'bytes':
                name, changed = self.bytes_changed(content)
                file.write_bytes(changed)
            elif change == 'other':
                name = self.other_file(file)
            else:
                changed = copy.deepcopy(batch)
                name = self.field_changed(changed)
                file.write_bytes(pickle.dumps(changed))
            yield Input(
                f'CIFAR, {change}',
                name,
                partial(CIFAR10LT, str(self.folder), split='test', check_integrity=False),
                _odd_images,
            )

    def inputs(self) -> Iterator[Input]:
        """Inputs of all kinds, more of what passes from hand to hand."""
        sources = [self.checkpoints(), self.predictions(), self.work_dirs(), self.cifar()]
        next(sources[0])  # trains the run, which others read as well
        while True:
            yield next(self.rng.choices(sources, [4, 4, 1, 1])[0])


class _Run:
    """A run of two epochs, which is resumed again and again."""

    def __init__(self, folder: Path) -> None:
        sys.path.append(str(ROOT / 'tests' / 'test_engine'))
        import runs

        torch.manual_seed(0)
        cfg = runs.digits_config(ROOT, folder)
        cfg.train_dataloader.dataset.max_count = 20
        cfg.train_cfg.max_epochs = 2
        cfg.pop('val_dataloader'), cfg.pop('val_evaluator'), cfg.pop('val_cfg')
        cfg.default_hooks.two_stage = cfg.default_hooks.reweighting = None
        runs.build_runner(cfg).train()
        self.newest = folder / 'epoch_2.pth'
        self.saved = {
            epoch: torch.load(folder / f'epoch_{epoch}.pth', weights_only=False) for epoch in (1, 2)
        }
        cfg.resume = True
        self.runner = runs.build_runner(cfg)
        self.runner.logger.setLevel(logging.CRITICAL)
        self.runner._train_loop = self.runner.build_train_loop(self.runner._train_loop)
        self.runner.optim_wrapper = self.runner.build_optim_wrapper(self.runner.optim_wrapper)
        self.runner.param_schedulers = self.runner.build_param_scheduler(
            self.runner.param_schedulers
        )
        self.hook = next(
            hook for hook in self.runner.hooks if type(hook).__name__ == 'CheckpointHook'
        )

    def means(self, content: dict) -> None:
        """Set what the newest checkpoint holds, where it is a whole file."""
        self.meant, meta = content, content.get('meta')
        epoch = meta.get('epoch') if isinstance(meta, dict) else None
        self.meant_epoch = epoch if type(epoch) is int else None

    def test(self) -> None:
        """Load the newest checkpoint as ``tools/test.py`` does."""
        self.runner.load_checkpoint(str(self.newest))

    def resume(self) -> int:
        """Resume as ``tools/train.py --resume`` does.

        Returns:
            int: The epoch that it goes on from.
        """
        runner = self.runner
        runner._has_loaded, runner._load_from = False, None
        self.hook.before_run(runner)
        runner.load_or_resume()
        return runner.epoch

    def not_saved(self, loaded: dict) -> str | None:
        """Whether something else was loaded than a whole checkpoint."""
        if not _equal(loaded, self.saved[2]) and loaded.get('state_dict', loaded).keys() == (
            self.saved[2]['state_dict'].keys()
        ):
            return 'it was loaded with other weights'

    def not_meant(self, _: Any = None) -> str | None:
        """Whether other weights were loaded than those of the file."""
        meant = self.meant.get('state_dict', self.meant)
        for key, value in self.runner.model.state_dict().items():
            if key in meant:
                found = meant[key].to(value.dtype)
                if not torch.equal(found.nan_to_num(7), value.nan_to_num(7)):
                    return f'{key} is not what the file holds'
            elif (
                key.startswith(('backbone.', 'neck.', 'head.classifiers.'))
                and 'num_batches_tracked' not in key
            ):
                return f'{key} is not in the file'

    def not_resumed(self, epoch: int) -> str | None:
        """Whether another state was resumed than that after an epoch."""
        if epoch == self.meant_epoch:
            return self.not_meant()
        saved = self.saved.get(epoch)
        if saved is None:
            return f'it was resumed at epoch {epoch}'
        if not _equal(self.runner.model.state_dict(), saved['state_dict']):
            return f'the weights are not those of epoch {epoch}'
        if not _equal(self.runner.optim_wrapper.optimizer.state_dict(), saved['optimizer']):
            return f'the optimizer is not that of epoch {epoch}'
        if self.runner.iter != saved['meta']['iter']:
            return f'the iteration is {self.runner.iter}'


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(_equal(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, (bool, int, float, str, type(None))):
        return one == other
    return type(one) is type(other)


def _load(path: Path) -> dict:
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


RUN = dict(
    options={'test_dataloader.dataset.data_root': 'data'},
    checkpoint='epoch_2.pth',
    weights='0123456789abcdef',
    num_experts=NUM_EXPERTS,
    classes=[f'class {i}' for i in range(NUM_CLASSES)],
    class_counts=COUNTS,
)


def make_samples() -> list:
    """Predictions with all fields, as ``tools/test.py`` writes them."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for index in range(NUM_IMAGES):
        logits = torch.randn(NUM_EXPERTS, NUM_CLASSES, generator=generator)
        samples.append(
            dict(
                gt_label=torch.tensor([index % NUM_CLASSES]),
                pred_score=logits.mean(0).softmax(0),
                num_experts_used=NUM_EXPERTS,
                relative_compute=1.0,
                expert_logits=logits,
                router_logits=torch.randn(NUM_EXPERTS - 1, generator=generator),
                routed_compute=torch.tensor([0.6, 0.8, 1.01], dtype=torch.float64),
            )
        )
    return samples


def _as_array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:
        return np.array(value, dtype=object)


def _read(file: Path, whole: Path):
    """All that the analysis tools compute of predictions."""
    predictions = read_predictions(file)
    if predictions.run['class_counts'] is not None:
        own = read_own_predictions(file)
        find(open_source(file))
        hardest_images(own, ClassGroups(own.run['class_counts']), 12)
        read_runs([f'A={whole}', f'B={file}'])
    if predictions.router_logits is not None:
        route(predictions, 0.5)
        RoutingSimulator(predictions, ClassGroups(COUNTS)).curve()
    summarize(predictions, ClassGroups(COUNTS))
    return predictions


def _misfit(predictions) -> str | None:
    """What is wrong with predictions, found independently of the reader."""
    number = len(predictions.gt_label)
    classes = predictions.num_classes or NUM_CLASSES
    for name, low, high in (
        ('gt_label', 0, classes - 1),
        ('pred_label', 0, classes - 1),
        ('num_experts_used', 1, 64),
        ('relative_compute', 1e-300, 2.0),
        ('pred_score', 0.0, 1.0),
        ('routed_compute', 1e-300, 2.0),
        ('expert_logits', -1e300, 1e300),
        ('router_logits', -1e300, 1e300),
    ):
        values = getattr(predictions, name)
        if values is None:
            continue
        values = values.astype(np.float64)
        if not ((values >= low) & (values <= high)).all():
            return f'{name} is not within {low} and {high}'
    shapes = dict(
        gt_label=(number,),
        pred_label=(number,),
        pred_score=(number, classes),
        num_experts_used=(number,),
        relative_compute=(number,),
    )
    if predictions.expert_logits is not None:
        experts = len(predictions.expert_logits)
        shapes.update(
            expert_logits=(experts, number, classes),
            router_logits=(experts - 1, number),
            routed_compute=(experts,),
        )
        if predictions.num_experts_used is not None and (
            predictions.num_experts_used.max() > experts
        ):
            return f'an image used more than {experts} experts'
    for name, shape in shapes.items():
        values = getattr(predictions, name)
        if values is not None and values.shape != shape:
            return f'{name} has the shape {values.shape}, not {shape}'


def _describe(work_dir: Path, config: Path) -> None:
    cfg = read_dumped_config(config)
    try:
        describe_config(cfg)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'the config of the training: {error}') from error
    read_curves(work_dir)


def _odd_images(dataset: CIFAR10LT) -> str | None:
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        if item['img'].shape != (32, 32, 3) or not (0 <= item['gt_label'] < 10):
            return f'image {index} is odd'


def fuzz(folder: Path, seed: int, number: int) -> Outcomes:
    """Try inputs.

    Args:
        folder (Path): An empty folder to work in.
        seed (int): Of all inputs.
        number (int): How many.

    Returns:
        Outcomes: What became of them.
    """
    outcomes, fuzzer = Outcomes(), Fuzzer(folder, seed)
    for source, _ in zip(fuzzer.inputs(), range(number)):
        kind, name, call, wrong = source

        def judge(result):
            return 'the file ran code' if fuzzer.trace.exists() else wrong(result)

        outcome = try_input(call, judge)
        if fuzzer.trace.exists():
            outcome = outcome._replace(name='wrongly accepted', detail='the file ran code')
            fuzzer.trace.unlink()
        outcomes.add(kind, name, outcome)
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--inputs', type=int, default=1000, metavar='N')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(Path(folder), args.seed, args.inputs).finish()


if __name__ == '__main__':
    sys.exit(main())
