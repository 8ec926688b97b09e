"""The figures of a report, for the page and for a paper."""

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ride_mm.analysis.report.page import Figure

FORMATS = ('.svg', '.png')


class FigureMaker:
    """Draws figures for the page, and into files.

    Args:
        out_dir (Path, optional): The folder to write them into, as SVG and
            as PNG. Defaults to None, which means no files.
    """

    def __init__(self, out_dir: Path | None = None) -> None:
        self.out_dir = out_dir

    def draw(self, key: str, label: str, plot: Callable[..., Path], **options: Any) -> Figure:
        """Draw a figure.

        Args:
            key (str): Its name, unique in the page.
            label (str): What it shows, for those who do not see it.
            plot (Callable): Draws it, a function that ends in :func:`save`.
            **options: Of this function, all but ``path``.

        Returns:
            Figure: For the page.
        """
        with TemporaryDirectory() as folder:
            svg = plot(path=Path(folder, 'figure.svg'), **options).read_bytes()
        if self.out_dir is not None:
            for suffix in FORMATS:
                plot(path=self.out_dir / f'{key}{suffix}', **options)
        source = f'data:image/svg+xml;base64,{b64encode(svg).decode()}'
        return Figure(source, label)
