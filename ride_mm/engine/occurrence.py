"""Which classes can occur where a model is used, and how often."""

import argparse
from collections.abc import Sequence

from mmengine.fileio import exists, get_text

from ride_mm.utils.errors import UserError, name_some, nearest


def add_occurrence_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--classes`` and ``--prior``."""
    parser.add_argument(
        '--classes',
        metavar='FILE',
        help='the classes that can occur, one name per line; all others get a score of 0',
    )
    parser.add_argument(
        '--prior',
        metavar='FILE',
        help='how often each class occurs, "name,frequency" per line, or the word "counts": as '
        'often as in the training set (default: all equally often)',
    )


def class_prior(
    names: Sequence[str],
    classes: str | None = None,
    prior: str | None = None,
    counts: Sequence[int] | None = None,
) -> list[float] | None:
    """Combine both options into ``model.test_cfg.prior``.

    Args:
        names (Sequence[str]): Names of the K classes.
        classes (str, optional): File with the names of the classes that can
            occur. Defaults to None: all.
        prior (str, optional): File with the frequencies of all these classes,
            or "counts". Defaults to None: all equal.
        counts (Sequence[int], optional): Training images per class, (K, ).

    Returns:
        list[float] | None: Relative frequencies, (K, ); None without both
        options.

    Raises:
        UserError: If a file is missing, or a line of it is wrong; the message
            names file and line.
    """
    if classes is None and prior is None:
        return None
    chosen = set(names) if classes is None else set(_read(classes, names, 1))
    if prior is None:
        found = dict.fromkeys(names, 1.0)
    elif prior == 'counts':
        if counts is None:
            raise UserError(
                '--prior counts: the training images per class are not known: set '
                'model.head.class_counts'
            )
        found = dict(zip(names, map(float, counts)))
    else:
        found = _read(prior, names, 2)
        missing = [name for name in names if name in chosen and name not in found]
        if missing:
            raise UserError(f'{prior} has no line for {name_some(missing)}')
    frequencies = [found.get(name, 0.0) if name in chosen else 0.0 for name in names]
    if not any(frequencies):
        raise UserError(f'{prior or classes}: all frequencies are 0')
    return frequencies


def _read(path: str, names: Sequence[str], fields: int) -> dict[str, float]:
    """Names and frequencies; a name alone has a frequency of 1."""
    if not exists(path):
        raise UserError(f'there is no file {path}')
    found: dict[str, float] = {}
    for number, line in enumerate(get_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        # A name may contain commas.
        name, *rest = line.strip().rsplit(',', fields - 1)
        name = name.strip()
        if name not in names:
            raise UserError(f'{path}:{number}: there is no class {name!r}.{nearest(name, names)}')
        if name in found:
            raise UserError(f'{path}:{number}: {name!r} is listed twice')
        try:
            found[name] = float(rest[0]) if fields == 2 else 1.0
        except (ValueError, IndexError):
            found[name] = -1.0
        if not 0 <= found[name] < float('inf'):
            raise UserError(f'{path}:{number}: expected "name,frequency", found {line.strip()!r}')
    return found
