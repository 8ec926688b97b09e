"""What becomes of fuzzed inputs: a message of one line, or something bad."""

import io
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from ride_mm.utils.errors import UserError, user_message

GOOD = ('refused', 'accepted')
BAD = ('wrongly accepted', 'wrongly refused', 'unclear message', 'trace', 'too slow')
LIMIT = 100  # seconds


class Outcome(NamedTuple):
    """What became of an input.

    Attributes:
        name (str): One of ``GOOD`` or ``BAD``.
        detail (str): The message, what is wrong, or the trace.
    """

    name: str
    detail: str = ''


class _TooSlow(BaseException):
    """No `except Exception` of the product catches it."""


def _stop(*_) -> None:
    raise _TooSlow


def try_input(
    call: Callable[[], Any], wrong: Callable[[Any], str | None] = lambda _: None, limit: int = LIMIT
) -> Outcome:
    """Give an input to the product, in this process and its main thread.

    Args:
        call (Callable): Takes the input; may print.
        wrong (Callable): Says what is wrong with the result of ``call``, or
            None. Defaults to nothing.
        limit (int): Seconds that it may take. Defaults to ``LIMIT``.

    Returns:
        Outcome: 'refused' for an error that the tools tell in one line (see
        :func:`~ride_mm.utils.errors.run_tool`), 'accepted' for any result
        that is not wrong.
    """
    before = signal.signal(signal.SIGALRM, _stop)
    signal.alarm(limit)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            result = call()
        problem = wrong(result)
        return Outcome('wrongly accepted', problem) if problem else Outcome('accepted')
    except _TooSlow:
        return Outcome('too slow', f'more than {limit} s')
    except UserError as error:
        return refusal(user_message(error))
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            return refusal(f'{error.filename}: {error.strerror}')
        return Outcome('trace', traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(message: str) -> Outcome:
    """A message to the user, which has to be one line that says something."""
    is_line = len(message.splitlines()) == 1 and len(message) > 20
    return Outcome('refused' if is_line else 'unclear message', message)


class Outcomes:
    """Counts what became of the inputs of each kind."""

    def __init__(self) -> None:
        self._counts: Counter = Counter()
        self._kinds: dict = {}
        self._start = time.monotonic()
        self.bad: list[str] = []

    def add(self, kind: str, name: str, outcome: Outcome) -> None:
        """Count an input.

        Args:
            kind (str): Its kind, a row of the table.
            name (str): What it is, to find it again.
            outcome (Outcome): What became of it.
        """
        self._kinds[kind] = None
        self._counts[kind, outcome.name] += 1
        if outcome.name in BAD:
            self.bad.append(f'{kind}: {name}: {outcome.name}: {outcome.detail}')

    def __len__(self) -> int:
        return sum(self._counts.values())

    def table(self) -> str:
        """A row for each kind, and one for all, with the time it took."""
        names = [*GOOD, *BAD]
        width = max(map(len, [*self._kinds, 'all']))
        rows = [[kind, *(self._counts[kind, name] for name in names)] for kind in self._kinds]
        rows.append(['all', *(sum(row[i + 1] for row in rows) for i in range(len(names)))])
        lines = [' ' * width + ''.join(f'  {name}' for name in names)]
        lines += [
            f'{row[0]:<{width}}'
            + ''.join(f'  {number:>{len(name)}}' for name, number in zip(names, row[1:]))
            for row in rows
        ]
        seconds = time.monotonic() - self._start
        return '\n'.join([*lines, f'{len(self)} inputs in {seconds:.0f} s'])

    def finish(self) -> int:
        """Print the table and what was bad.

        Returns:
            int: The exit status, 1 if anything was bad.
        """
        print(self.table())
        for line in self.bad:
            print(line)
        return int(bool(self.bad))
