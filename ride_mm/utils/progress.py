"""Progress of what takes a while."""
from typing import Iterable, Iterator, Optional

from rich import progress
from rich.console import Console


def track(steps: Iterable,
          description: str,
          total: Optional[int] = None) -> Iterator:
    """Show a bar while something is gone through, and take it away then.

    It is on stderr, and on a terminal alone, so that it is in no file that
    the output of a tool goes to.

    Args:
        steps (Iterable): What is gone through.
        description (str): What happens.
        total (int, optional): The number of steps. Defaults to None, which
            means their length.

    Returns:
        Iterator: The steps.
    """
    console = Console(stderr=True)
    return progress.track(
        steps,
        description,
        total,
        console=console,
        transient=True,
        disable=not console.is_terminal)
