import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from mmpretrain.structures import DataSample

from ride_mm.datasets.check import find_unreadable
from ride_mm.utils.errors import UserError, nearest


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

    The headers of all image files are read, at most 20,000. The first image
    goes through the model, and its prediction, once for every class, through
    the metrics: an unreadable image, ``topk`` above the number of classes and
    an unknown ``save_best`` stop training here. No results are kept.
    """

    # After the hooks that prepare the model.
    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        """Try.

        Raises:
            UserError: If the validation would fail.
        """
        if runner.val_loop is None:
            return
        with _random_state_kept():
            _check_files(runner)
            samples = self._predict(runner)
            keys = self._evaluate(runner, samples)
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.save_best:
                _check_keys(hook.key_indicators, keys)

    @staticmethod
    @torch.no_grad()
    def _predict(runner: Runner) -> list[dict]:
        """The first image's prediction, as one of each class."""
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
        classes = loader.dataset.metainfo.get('classes') or [0]
        if not isinstance(sample, DataSample):
            return [sample]
        return [sample.clone().set_gt_label(label).to_dict() for label in range(len(classes))]

    @staticmethod
    def _evaluate(runner: Runner, samples: list[dict]) -> set[str]:
        """Names of the metrics' results."""
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


def _check_files(runner: Runner) -> None:
    """Check the image files, in the first process only."""
    dataset, problems = runner.val_dataloader.dataset, []
    if is_main_process():
        number, problems = find_unreadable(dataset)
        if number < len(dataset) and number:
            runner.logger.info(
                f'Read the headers of {number:,} of {len(dataset):,} '
                'validation images, evenly spaced.'
            )
    message = [None]
    if problems:
        more = len(problems) - 1
        message[0] = f'val_dataloader.dataset: {problems[0]}' + (
            f' ({more} more cannot be read)' if more else ''
        )
    broadcast_object_list(message)
    if message[0] is not None:
        raise UserError(message[0])


def _check_keys(wanted: list[str], keys: set[str]) -> None:
    for key in wanted:
        if key != 'auto' and key not in keys:
            raise UserError(
                f'default_hooks.checkpoint.save_best={key!r} is not a metric '
                f'of val_evaluator.{nearest(key, keys)} Available: '
                f'{", ".join(sorted(keys))}.'
            )
