"""Progress bars."""

from collections.abc import Iterable

from rich import progress
from rich.console import Console


def track(steps: Iterable, description: str, total: int | None = None) -> Iterable:
    """Show a transient progress bar while iterating.

    The bar goes to stderr, and is disabled if that is not a terminal.

    Args:
        steps (Iterable): The steps to iterate over.
        description (str): Label of the bar.
        total (int, optional): The number of steps. Defaults to None, which
            means their ``len()``.

    Returns:
        Iterable: The steps.
    """
    console = Console(stderr=True)
    return progress.track(
        steps, description, total, console=console, transient=True, disable=not console.is_terminal
    )
