"""What a run shows on the screen; the log file has everything that MMEngine writes."""

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich import progress
from rich.console import Console

from ride_mm.datasets.class_groups import key_prefix
from ride_mm.evaluation.long_tail import MEAN_TITLES, LongTailMetric
from ride_mm.evaluation.tables import build_table, render_table
from ride_mm.utils.rank import is_main_process

# Messages about the run as a whole, which a user has in the log file, and
# MMEngine's advice to its own code.
_FILE_ONLY = re.compile(
    r'\s*-+\s*System environment:|Config:\n|Hooks will be executed|Exp name: '
    r'|Distributed training is not used, all SyncBatchNorm'
    r'|"FileClient" will be deprecated|"HardDiskBackend" is the alias'
    r'|The prefix is not set in metric class Dump'
)
_FIRST = dict(overall='', balanced=MEAN_TITLES['balanced'])
# Least time between two drawings of the progress bar, which take milliseconds.
_SECONDS = 1.0


class ScreenHook(Hook):
    """Logs the accuracy by class group after each validation, and leaves out of
    the screen what it repeats.

    Without ``verbose`` the screen shows neither environment, config and hooks
    nor the tables and the line of all metrics of a validation during training.

    Args:
        verbose (bool): Whether the screen shows all that the log file has.
            Defaults to False.
    """

    # After LoggerHook, and before CheckpointHook.
    priority = 'LOW'

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._is_repeated = False

    def build(self, runner_class: type[Runner], cfg: Any) -> Runner:
        """Build a runner whose log goes through this hook from the first line on.

        Args:
            runner_class (type): The class of the runner.
            cfg (Config): Its config.

        Returns:
            Runner: The runner, with this hook.
        """

        def build_logger(runner: Runner, *args: Any, **kwargs: Any) -> MMLogger:
            logger = runner_class.build_logger(runner, *args, **kwargs)
            for handler in logger.handlers:
                if type(handler) is logging.StreamHandler:  # not that of a file
                    handler.addFilter(self.shows)
            logger.info(
                'Log file, with environment, config and hooks (--verbose shows them here): '
                f'{logger.log_file}'
            )
            return logger

        methods = {} if self.verbose else dict(build_logger=build_logger)
        kind: Any = type(runner_class.__name__, (runner_class,), methods)
        runner = kind.from_cfg(cfg)
        runner.register_hook(self)
        return runner

    def shows(self, record: logging.LogRecord) -> bool:
        """Whether the screen shows a message."""
        if self._is_repeated and record.levelno < logging.WARNING:
            return False
        return _FILE_ONLY.match(record.getMessage()) is None

    def after_val_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """After the last batch come the tables of the metrics."""
        is_last = batch_idx + 1 == len(runner.val_dataloader)
        self._is_repeated = is_last and _long_tail_metric(runner) is not None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Log the accuracy by class group."""
        self._is_repeated = False
        metric = _long_tail_metric(runner)
        if metric is not None and metrics:
            loop = runner._train_loop
            after = f' of epoch {loop.epoch}' if isinstance(loop, EpochBasedTrainLoop) else ''
            runner.logger.info(f'Validation{after}\n{validation_table(metrics, metric)}')


def _long_tail_metric(runner: Runner) -> LongTailMetric | None:
    metrics = runner.val_loop.evaluator.metrics
    return next((metric for metric in metrics if isinstance(metric, LongTailMetric)), None)


def validation_table(metrics: dict[str, Any], metric: LongTailMetric) -> str:
    """Summarize the metrics of a validation in one line per class group.

    Args:
        metrics (dict): The metrics.
        metric (LongTailMetric): The metric of the accuracy.

    Returns:
        str: A table of accuracy (percent) and, where they are measured, experts
        per image and relative compute, then a line of the other metrics, if any.
    """
    columns = {
        f'top-{k}': f'{metric.prefix}/{{0}}{"" if k == 1 else f"_top{k}"}' for k in metric.topk
    }
    if 'experts/mean' in metrics:
        columns |= dict(experts='experts/{1}mean', compute='experts/{1}compute')
    rows = []
    for group, title in (_FIRST | metric.groups.titles).items():
        keys = [key.format(group, key_prefix(group)) for key in columns.values()]
        if keys[0] in metrics:
            rows.append([title, *(f'{metrics[k]:.2f}' if k in metrics else '' for k in keys)])
    table = build_table('', ['', *columns], rows)
    table.box = None
    shown = (f'{metric.prefix}/', 'experts/')
    others = [
        f'{key}: {value:.4f}'
        for key, value in metrics.items()
        if not key.startswith(shown) and isinstance(value, float)
    ]
    return '\n'.join([render_table(table), *['  '.join(others)] * bool(others)])


class ProgressHook(Hook):
    """Shows how far the epoch is, and MMEngine's estimate of the time left.

    Args:
        bar (rich.progress.Progress): The bar, which is drawn only here: a thread that draws
            could hold a lock while workers of a dataloader are forked.
    """

    # After IterTimerHook and the hooks that log.
    priority = 'LOWEST'

    def __init__(self, bar: progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task('', visible=False, left='')
        self._drawn = 0.0

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        self._draw(runner, 0, mode)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        if time.monotonic() - self._drawn > _SECONDS:
            eta = runner.message_hub.get_info('eta')  # None without an IterTimerHook
            left = '' if eta is None else f'eta {timedelta(seconds=int(eta))}'
            self._draw(runner, batch_idx + 1, mode, left)

    def _draw(self, runner: Runner, done: int, mode: str, left: str = '') -> None:
        title = dict(train='Training', val='Validation', test='Test')[mode]
        loop = getattr(runner, f'{mode}_loop')
        total = len(loop.dataloader)
        if mode == 'train':
            if isinstance(loop, EpochBasedTrainLoop):
                title = f'Epoch {loop.epoch + 1}/{loop.max_epochs}'
            else:
                total = loop.max_iters
        self._bar.update(
            self._task, description=title, completed=done, total=total, left=left, visible=True
        )
        self._bar.refresh()
        self._drawn = time.monotonic()


@contextmanager
def progress_bar(runner: Runner) -> Iterator[None]:
    """Show a progress bar on stderr, if that is a terminal, below the log.

    Args:
        runner (Runner): The runner; what it runs inside of the context shows
            the bar.
    """
    console = Console(stderr=True, soft_wrap=True)
    if not (console.is_terminal and is_main_process()):
        yield
        return
    bar = progress.Progress(
        progress.TextColumn('{task.description}'),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn('{task.fields[left]}'),
        console=console,
        transient=True,
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),
    )
    screens = [h for h in runner.logger.handlers if getattr(h, 'stream', None) is sys.stdout]
    runner.register_hook(ProgressHook(bar))
    stdout = sys.stdout
    with bar:
        # shown in case the process is killed
        console.show_cursor()
        try:
            for handler in screens:
                handler.setStream(sys.stdout)  # rich's, which writes above the bar
            yield
        finally:
            for handler in screens:
                handler.setStream(stdout)
