"""The figures of a report, for the page and for a paper."""
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Optional

from markupsafe import Markup

from ..plots import narrow_figures
from .page import Figure
from .svg import inline_svg

FORMATS = ('.svg', '.png')


class FigureMaker:
    """Draws each figure for wide and for narrow pages, and into files.

    Args:
        out_dir (Path, optional): The folder to write the wide ones into, as
            SVG and as PNG. Defaults to None, which means no files.
    """

    def __init__(self, out_dir: Optional[Path] = None) -> None:
        self.out_dir = out_dir

    def draw(self, key: str, label: str, plot: Callable[..., Path],
             **options: Any) -> Figure:
        """Draw a figure.

        Args:
            key (str): Its name, unique in the page.
            label (str): What it shows, for those who do not see it.
            plot (Callable): Draws it, one of ``ride_mm.analysis.plots``.
            **options: Of this function, all but ``path``.

        Returns:
            Figure: For the page.
        """
        with TemporaryDirectory() as folder:
            file = Path(folder, 'figure.svg')
            wide = plot(path=file, **options).read_text('utf-8')
            with narrow_figures():
                narrow = plot(path=file, **options).read_text('utf-8')
        if self.out_dir is not None:
            for suffix in FORMATS:
                plot(path=self.out_dir / f'{key}{suffix}', **options)
        return Figure(
            Markup(inline_svg(wide, f'{key}-wide', label, 'wide')),
            Markup(inline_svg(narrow, f'{key}-narrow', label, 'narrow')))
