"""A training that is measured in turns: ordinary steps and a bare loop."""
import time
from itertools import cycle
from statistics import median
from typing import Callable, Iterator, List, Optional

import torch
from contest import Referee
from machine import PeakMemory, synchronize
from mmengine.hooks import Hook

WARM_UP_STEPS = 5
_LEAST_STEPS = 3
_MEMORY_STEPS = 5
_BATCHES = 4


class Pace:
    """Divides an endless training into turns, from within.

    Args:
        referee (Referee): Asks for turns: ``dict(seconds=S)`` for the time
            of steps, ``dict(memory=True)`` for their memory; with
            ``bare=True`` for those of :attr:`bare`.
        device (str): "cpu" or "cuda".
        prefetched (int): Batches that may have been loaded while others had
            their turn; as many steps are not counted. Defaults to 0.
    """

    def __init__(self,
                 referee: Referee,
                 device: str,
                 prefetched: int = 0) -> None:
        self.info: dict = {}
        #: Takes a step of a bare loop, and says how many images it had.
        self.bare: Optional[Callable[[], int]] = None
        self._referee = referee
        self._device = device
        self._prefetched = prefetched
        self._turns = self._run()
        next(self._turns)

    def step(self, images: int) -> None:
        """To be called after each step with the number of its images."""
        self._turns.send(images)

    def _run(self) -> Iterator[None]:
        """Every ``yield`` is a training step."""
        for _ in range(WARM_UP_STEPS):
            yield
        reply = self.info
        while True:
            synchronize(self._device)
            if self._device == 'cuda':
                # the others need the memory
                torch.cuda.empty_cache()
            request = self._referee.exchange(reply)
            turn = (
                self._memory() if 'memory' in request else self._timed(
                    request['seconds']))
            if request.get('bare'):
                reply = self._drive(turn)
            else:
                reply = yield from turn

    def _drive(self, turn: Iterator[None]) -> dict:
        """Take the steps of a turn at once, in the bare loop."""
        try:
            next(turn)
            while True:
                turn.send(self.bare())
        except StopIteration as stop:
            return stop.value

    def _memory(self) -> Iterator[None]:
        peaks = []
        for _ in range(_MEMORY_STEPS):
            memory = PeakMemory(self._device)
            yield
            peaks.append(memory.read())
        return dict(
            step_memory_bytes=None if None in peaks else median(peaks),
            reserved_memory_bytes=memory.reserved())

    def _timed(self, seconds: float) -> Iterator[None]:
        yield
        end = time.perf_counter() + seconds
        for _ in range(self._prefetched):
            # a loader that is so much faster has nothing to catch up with
            if time.perf_counter() > end:
                break
            yield
        synchronize(self._device)
        begin = time.perf_counter()
        images = []
        while (len(images) < _LEAST_STEPS
               or time.perf_counter() < begin + seconds):
            images.append((yield))
        synchronize(self._device)
        return dict(
            seconds=time.perf_counter() - begin,
            steps=len(images),
            images=sum(images))


class PaceHook(Hook):
    """Tells after each iteration of the runner, when all else is done."""

    priority = 'LOWEST'

    def __init__(self, pace: Pace) -> None:
        self.pace = pace

    def before_train(self, runner) -> None:
        self.pace.info['parameters'] = count_parameters(runner.model)
        self.pace.bare = self.bare = BareLoop(runner)

    def after_train_iter(self,
                         runner,
                         batch_idx,
                         data_batch=None,
                         outputs=None) -> None:
        self.bare.keep(data_batch)
        self.pace.step(len(data_batch['inputs']))


class BareLoop:
    """Steps of a bare PyTorch loop, with what the runner has built.

    Args:
        runner (Runner): It has the model and the optimizer.
    """

    def __init__(self, runner) -> None:
        self._model, self._wrapper = runner.model, runner.optim_wrapper
        self._device = next(self._model.parameters()).device.type
        self._amp = hasattr(self._wrapper, 'loss_scaler')
        self._scaler = torch.amp.GradScaler(
            self._device, enabled=self._amp and self._device == 'cuda')
        self._batches: List[dict] = []
        self._endless = cycle(self._batches)

    def keep(self, batch: dict) -> None:
        """Keep the first batches, to go round in them."""
        if len(self._batches) < _BATCHES:
            self._batches.append(
                self._model.data_preprocessor(batch, training=True))

    def __call__(self) -> int:
        """Take a step, and say how many images it had."""
        batch, wrapper = next(self._endless), self._wrapper
        dtype = getattr(wrapper, 'cast_dtype', None)
        with torch.autocast(self._device, dtype, enabled=self._amp):
            losses = self._model(**batch, mode='loss')
            loss = sum(losses.values())
        self._scaler.scale(loss).backward()
        self._scaler.step(wrapper.optimizer)
        self._scaler.update()
        wrapper.optimizer.zero_grad()
        return len(batch['inputs'])


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
