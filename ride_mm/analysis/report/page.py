"""The parts of the page, and its HTML."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ride_mm.analysis.accuracy.hardest import HardImage

_FOLDER = Path(__file__).parent


class Card(NamedTuple):
    """A key figure, and a note on what to compare it with."""

    title: str
    value: str
    note: str = ''


class Figure(NamedTuple):
    """A plot: its data URL, and its text alternative."""

    source: str
    label: str


class Table(NamedTuple):
    """A table; the first cell of each row is the row's header."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str


class Facts(NamedTuple):
    """A key-value list."""

    facts: dict[str, str]


class Note(NamedTuple):
    """What is left out, and how to get it."""

    text: str


class Details(NamedTuple):
    """A collapsible text."""

    title: str
    text: str


class Gallery(NamedTuple):
    """The hardest images by the title of their group."""

    groups: dict[str, list[HardImage]]
    names: Sequence[str]
    class_counts: np.ndarray
    routed: bool


class Section(NamedTuple):
    """A section of the page: its id, title, explanation, and parts."""

    key: str
    title: str
    text: str
    parts: list


class FigureMaker:
    """Draw plots for the page, and optionally into files.

    Args:
        out_dir (Path, optional): The folder to also write the plots to, as
            SVG and PNG. Defaults to None.
    """

    def __init__(self, out_dir: Path | None = None) -> None:
        self.out_dir = out_dir

    def draw(self, key: str, label: str, plot: Callable[..., Path], **options: Any) -> Figure:
        """Draw a plot.

        Args:
            key (str): Its file name without suffix, unique in the page.
            label (str): Text alternative, for readers who do not see it.
            plot (Callable): A function that ends in :func:`.save`.
            **options: The arguments of this function, except ``path``.

        Returns:
            Figure: The plot for the page.
        """
        with TemporaryDirectory() as folder:
            svg = plot(path=Path(self.out_dir or folder, f'{key}.svg'), **options).read_bytes()
        if self.out_dir is not None:
            plot(path=self.out_dir / f'{key}.png', **options)
        return Figure(f'data:image/svg+xml;base64,{b64encode(svg).decode()}', label)


def percent(share: float) -> str:
    """Format a probability as a percentage."""
    if share < 0.0005:
        return 'below 0.1%'
    return f'{100 * share:.1f}%' if share < 0.1 else f'{100 * share:.0f}%'


def mark_code(text: str) -> Markup:
    """Escape a text, and set what is in backticks as code."""
    parts = [escape(part) for part in text.split('`')]
    parts[1::2] = [Markup('<code>{}</code>').format(p) for p in parts[1::2]]
    return Markup('').join(parts)


def render(title: str, summary: str, cards: list[Card], sections: list[Section]) -> str:
    """Render the page as HTML that loads nothing from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, code=mark_code, kind=lambda part: type(part).__name__
    )
    style = Markup((_FOLDER / 'style.css').read_text(encoding='utf-8'))
    return environment.get_template('page.html').render(
        title=title, summary=summary, cards=cards, sections=sections, style=style
    )
