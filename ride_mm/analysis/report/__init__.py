"""A report of a model: one page that needs nothing else."""

from pathlib import Path

import mmengine

from ride_mm.analysis.report.figure_maker import FigureMaker
from ride_mm.analysis.report.findings import Findings, find
from ride_mm.analysis.report.overview import cards, page_title, summary
from ride_mm.analysis.report.page import Note, Page, render
from ride_mm.analysis.report.sections import builders
from ride_mm.analysis.report.source import Source, open_source
from ride_mm.compat.atomic_backend import write_file
from ride_mm.utils.errors import UserError
from ride_mm.utils.progress import track

__all__ = ['Findings', 'Source', 'find', 'open_source', 'write_report']


def write_report(
    run: str | Path,
    out: str | Path,
    predictions_file: str | Path | None = None,
    figures_dir: str | Path | None = None,
    json_file: str | Path | None = None,
    num_images: int = 12,
    command: str = 'ride_mm.analysis.write_report',
    config: str | Path | None = None,
    cfg_options: dict | None = None,
) -> list[str]:
    """Write what a trained model does as one page, to be sent to others.

    Args:
        run (str | Path): The work_dir of a training with predictions in it,
            or a file of predictions.
        out (str | Path): The HTML file.
        predictions_file (str | Path, optional): What ``tools/test.py
            --all-experts --out`` wrote. Defaults to None, which means
            ``predictions.npz`` of the work_dir.
        figures_dir (str | Path, optional): The folder to write the figures
            into as well, as SVG and PNG. Defaults to None.
        json_file (str | Path, optional): Where to write the figures as
            numbers. Defaults to None.
        num_images (int): How many of the hardest images to show. Defaults to
            12.
        command (str): What made the report, for its last section.
        config (str | Path, optional): The config of the test, for the
            pictures. It is a program and is run. Defaults to None, which
            means that no config is run and there are no pictures.
        cfg_options (dict, optional): Settings of it to override. Defaults to
            None.

    Returns:
        list[str]: What is left out, and how to get it.

    Raises:
        UserError: If the files are not what they should be, or do not belong
            together.
    """
    if figures_dir is not None and any(Path(figures_dir).glob('*')):
        raise UserError(f'--figures {figures_dir} is not empty: choose another folder.')
    found = find(open_source(run, predictions_file, config, cfg_options))
    maker = FigureMaker(None if figures_dir is None else Path(figures_dir))
    sections = [
        build()
        for build in track(
            builders(found, maker, num_images, command), description='Writing the report'
        )
    ]
    page = Page(page_title(found), summary(found), cards(found), sections)
    write_file(out, render(page))
    if json_file is not None:
        mmengine.dump(found.as_dict(), str(json_file), indent=2)
    return [part.text for section in sections for part in section.parts if isinstance(part, Note)]
