"""Errors that are the user's: one line instead of a stack trace."""

import errno
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

# Seconds: enough for torchrun to stop this rank if rank 0 failed as well.
_RANK_DELAY = 5
# An error while writing to an open file does not name the file.
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What workers of a dataloader and some versions of mmengine's registries put
# before a message.
_OF_WORKERS = 'Caught UserError in DataLoader worker'
_OF_REGISTRIES = re.compile(r'^(class `[^`]*` in \S+\.py: )+')


class UserError(ValueError):
    """A mistake in what the user gave: a config, a path, a data list.

    The user sees only the message, so it names the config key or the file and
    line, what was found, what was expected and, where it helps, the nearest
    valid name.

    Args:
        message (str): The message.
        places (Sequence[str]): All places of the mistake, if the message names
            only one of several. Defaults to ().
    """

    def __init__(self, message: str, places: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.places = list(places)


def nearest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """Suggest the nearest valid name, as the end of a message.

    Args:
        name (str): The name that was found.
        candidates (Iterable[str]): The valid names.
        cutoff (float): Least similarity of the names, from 0 to 1, as difflib
            measures it, ignoring case. Defaults to 0.6.

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
    """Join the first names for a message, with the number of the others.

    Args:
        names (Sequence): The names, or numbers.
        most (int): The number of names to show. Defaults to 10.

    Returns:
        str: Such as ``'cat, dog and 3 more'``.
    """
    text = ', '.join(str(name) for name in names[:most])
    more = len(names) - most
    return text if more <= 0 else f'{text} and {more} more'


def describe_unreadable(path: str, error: Exception) -> str:
    """Say that an image cannot be read, and why.

    Args:
        path (str): The image.
        error (Exception): The error from reading it.

    Returns:
        str: The path and the reason.
    """
    if isinstance(error, OSError) and error.strerror:
        return f'{path} cannot be read: {error.strerror}'
    if 'buf.empty()' in str(error):  # OpenCV's message
        return f'{path} is empty: it has 0 bytes'
    return f'{path} cannot be decoded as an image'


def user_message(error: UserError) -> str:
    """Get the message as it was first raised.

    Args:
        error (UserError): The error as it was caught.

    Returns:
        str: The message, without the trace of a dataloader's worker or the
        classes that a registry was building.
    """
    message = str(error)
    if message.startswith(_OF_WORKERS):
        message = message.strip().rpartition('UserError: ')[2]
    return _OF_REGISTRIES.sub('', message)


def find_places(error: UserError) -> list[str]:
    """Get the places of a mistake, even if the error was raised again.

    Args:
        error (UserError): The error as it was caught.

    Returns:
        list[str]: Its places, or those of the error that it was raised from.
    """
    found: BaseException | None = error
    while found is not None:
        places = getattr(found, 'places', None)
        if places:
            return places
        found = found.__cause__ or found.__context__
    return []


def run_tool(main: Callable[[], None]) -> None:
    """Run a command line tool, and report the user's errors in one line.

    A :class:`UserError`, or an :class:`OSError` about a file, is printed to
    stderr and ends the tool with status 2, Ctrl-C with 130. Other exceptions
    keep their trace; ``RIDE_MM_DEBUG=1`` shows it for these errors as well.

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
