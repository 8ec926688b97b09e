"""A user's own mistake, told in one line instead of a stack trace."""

import errno
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

# Long enough for torchrun to stop this rank when rank 0 failed as well.
_RANK_DELAY = 5
# Who writes into an open file that a disk has no room for is not told which.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_WORKERS = 'Caught UserError in DataLoader worker'
_OF_REGISTRIES = re.compile(r'^(class `[^`]*` in \S+\.py: )+')


class UserError(ValueError):
    """A mistake in what the user gave: a config, a path, a data list.

    The message is all that the user sees, so it names the config key or the
    file and line, what was found, what was expected and, where it helps,
    the nearest valid name.

    Args:
        message (str): The message.
        places (Sequence[str]): Every place of a mistake that there is more
            than once, where the message names one. Defaults to ().
    """

    def __init__(self, message: str, places: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.places = list(places)


def nearest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """Name the nearest valid name, as the end of a message.

    Args:
        name (str): The name that was found.
        candidates (Iterable[str]): The valid names.
        cutoff (float): How alike two names have to be, from 0 to 1, as
            difflib measures it, whatever their case. Defaults to 0.6.

    Returns:
        str: ``" Did you mean 'x'?"``, or an empty string when nothing is
        close.

    Examples:
        >>> nearest('expets', ['experts', 'router'])
        " Did you mean 'experts'?"
    """
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return f' Did you mean {by_lower[matches[0]]!r}?' if matches else ''


def name_some(names: Sequence, most: int = 10) -> str:
    """Join the first names for a message, and say how many more there are.

    Args:
        names (Sequence): The names, or numbers.
        most (int): How many to name. Defaults to 10.

    Returns:
        str: Such as ``'cat, dog and 3 more'``.
    """
    text = ', '.join(str(name) for name in names[:most])
    more = len(names) - most
    return text if more <= 0 else f'{text} and {more} more'


def user_message(error: UserError) -> str:
    """The message as it was first raised.

    Registries of some mmengine versions re-raise what a constructor raised,
    with the same type and ``class `X` in x.py:`` before the message. Workers
    of a loader put their trace before it.

    Args:
        error (UserError): The error as it was caught.

    Returns:
        str: The message without that.
    """
    message = str(error)
    if message.startswith(_OF_WORKERS):
        message = message.strip().rpartition('UserError: ')[2]
    return _OF_REGISTRIES.sub('', message)


def find_places(error: UserError) -> list[str]:
    """Get the places of a mistake, also of an error that was raised anew.

    Args:
        error (UserError): The error as it was caught.

    Returns:
        list[str]: Its places, or those of what it was raised from.
    """
    found: BaseException | None = error
    while found is not None:
        places = getattr(found, 'places', None)
        if places:
            return places
        found = found.__cause__ or found.__context__
    return []


def run_tool(main: Callable[[], None]) -> None:
    """Run a command line tool; end a :class:`UserError` as one line, and so
    what the system says of a file.

    The line goes to stderr and the exit status is 2; Ctrl-C ends in a line
    as well, with 130. Other exceptions keep
    their trace; ``RIDE_MM_DEBUG=1`` shows it for these as well.

    Args:
        main (Callable): The tool.
    """
    try:
        main()
    except (UserError, OSError) as error:
        is_full = getattr(error, 'errno', None) in _FULL
        if isinstance(error, OSError) and not (error.filename or is_full):
            raise
        if os.environ.get('RIDE_MM_DEBUG', '0') not in ('', '0'):
            raise
        if int(os.environ.get('RANK', 0)):
            time.sleep(_RANK_DELAY)
        if isinstance(error, OSError):
            message = f'{error.filename or "a file"}: {error.strerror}'
        else:
            message = user_message(error)
        print(f'error: {message}', file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        if int(os.environ.get('RANK', 0)) == 0:
            print('interrupted', file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
