"""The page: what it consists of, and its HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ride_mm.analysis.accuracy.hardest import HardImage

_FOLDER = Path(__file__).parent


class Card(NamedTuple):
    """A key figure.

    Args:
        title (str): What it is.
        value (str): The figure.
        note (str): What to compare it with. Defaults to ''.
    """

    title: str
    value: str
    note: str = ''


@dataclass(frozen=True)
class Figure:
    """A picture: its data URL, and what it shows."""

    source: str
    label: str
    kind: str = 'figure'


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its head."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str
    kind: str = 'table'


@dataclass(frozen=True)
class Facts:
    """Key-value list."""

    facts: dict[str, str]
    kind: str = 'facts'


@dataclass(frozen=True)
class Note:
    """What is left out, and how to get it."""

    text: str
    kind: str = 'note'


@dataclass(frozen=True)
class Details:
    """A text to unfold."""

    title: str
    text: str
    kind: str = 'details'


@dataclass(frozen=True)
class Gallery:
    """The hardest images by the title of their group."""

    groups: dict[str, list[HardImage]]
    names: Sequence[str]
    class_counts: Sequence[int]
    routed: bool
    kind: str = 'gallery'


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        key (str): Its id.
        title (str): Its title.
        text (str): How to read it.
        parts (list): What it shows.
    """

    key: str
    title: str
    text: str
    parts: list = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """All that is on the page."""

    title: str
    summary: str
    cards: list[Card]
    sections: list[Section]


def percent(share: float) -> str:
    """Write a probability."""
    if share < 0.0005:
        return 'below 0.1%'
    return f'{100 * share:.1f}%' if share < 0.1 else f'{100 * share:.0f}%'


def mark_code(text: str) -> Markup:
    """Escape a text, and set what stands in backticks as code."""
    parts = [escape(part) for part in text.split('`')]
    parts[1::2] = [Markup('<code>{}</code>').format(p) for p in parts[1::2]]
    return Markup('').join(parts)


def render(page: Page) -> str:
    """Write a page as HTML that loads nothing from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, code=mark_code)
    style = Markup((_FOLDER / 'style.css').read_text(encoding='utf-8'))
    return environment.get_template('page.html').render(page=page, style=style)
