import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.evaluator import DumpResults
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from mmpretrain.structures import DataSample

from ride_mm.datasets.check import find_unreadable
from ride_mm.utils.errors import UserError, nearest

from .main_process import on_main_process


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the random state afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy)


@HOOKS.register_module()
class ValidationCheckHook(Hook):
    """Finds errors of the first validation before the first step.

    The headers of up to 20,000 image files are read. The first image passes
    through the model, and its prediction, once for every class, through the
    metrics: an unreadable image, ``topk`` above the number of classes and an
    unknown ``save_best`` stop training here. No results are kept.
    """

    # After the hooks that prepare the model.
    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        """Try the validation.

        Raises:
            UserError: If it would fail.
        """
        if runner.val_loop is None:
            return
        with _random_state_kept():
            on_main_process(lambda: _check_files(runner))
            samples = _predict(runner)
            with _without_tables(runner):
                keys = _evaluate(runner, samples)
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.save_best:
                for key in hook.key_indicators:
                    if key != 'auto' and key not in keys:
                        raise UserError(
                            f'default_hooks.checkpoint.save_best={key!r} is not a metric '
                            f'of val_evaluator.{nearest(key, keys)} Available: '
                            f'{", ".join(sorted(keys))}.'
                        )


def _check_files(runner: Runner) -> None:
    """Check the headers of the image files."""
    dataset = runner.val_dataloader.dataset
    number, problems = find_unreadable(dataset)
    if 0 < number < len(dataset):
        runner.logger.info(
            f'Read the headers of {number:,} of {len(dataset):,} validation images, evenly spaced.'
        )
    if problems:
        more = f' ({len(problems) - 1} more cannot be read)' if problems[1:] else ''
        raise UserError(f'val_dataloader.dataset: {problems[0]}{more}')


@torch.no_grad()
def _predict(runner: Runner) -> list[dict]:
    """Predict the first image; return one copy labeled as each class."""
    loader = runner.val_dataloader
    if len(loader.dataset) == 0:
        raise UserError('val_dataloader.dataset has no image')
    try:
        batch = loader.collate_fn([loader.dataset[0]])
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            'the first image of val_dataloader.dataset cannot be read: '
            f'{type(error).__name__}: {error}'
        ) from error
    training = runner.model.training
    runner.model.eval()
    (sample,) = runner.model.val_step(batch)
    runner.model.train(training)
    if not isinstance(sample, DataSample):
        return [sample]
    classes = loader.dataset.metainfo.get('classes') or [0]
    return [sample.clone().set_gt_label(label).to_dict() for label in range(len(classes))]


@contextmanager
def _without_tables(runner: Runner) -> Iterator[None]:
    """Log warnings only: the figures of one image mean nothing."""
    level = runner.logger.level
    runner.logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        runner.logger.setLevel(level)


def _evaluate(runner: Runner, samples: list[dict]) -> set[str]:
    """Return the names of all metrics of these predictions."""
    keys: set[str] = set()
    for i, metric in enumerate(runner.val_loop.evaluator.metrics):
        if isinstance(metric, DumpResults):
            continue
        try:
            metric.process(None, samples)
            keys.update(metric.evaluate(len(samples)))
        except Exception as error:
            raise UserError(
                f'val_evaluator.{i}, {type(metric).__name__}, '
                f'would fail at the first validation: {error}'
            ) from error
    return keys
