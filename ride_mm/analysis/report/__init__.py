"""A report of a model: one self-contained HTML page."""

from pathlib import Path

import mmengine

from ride_mm.analysis.report.findings import find
from ride_mm.analysis.report.overview import cards, page_title, summary
from ride_mm.analysis.report.page import FigureMaker, Note, render
from ride_mm.analysis.report.sections import build_sections
from ride_mm.analysis.report.source import open_source
from ride_mm.utils.errors import UserError
from ride_mm.utils.files import write_file
from ride_mm.utils.progress import track


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
    """Write a report of a trained model as one self-contained page.

    Args:
        run (str | Path): The work_dir of a training that contains
            predictions, or a predictions file.
        out (str | Path): The HTML file to write.
        predictions_file (str | Path, optional): The output of
            ``tools/test.py --all-experts --out``. Defaults to None, which
            means ``predictions.npz`` in the work_dir.
        figures_dir (str | Path, optional): An empty folder to also write the
            plots to, as SVG and PNG. Defaults to None.
        json_file (str | Path, optional): The JSON file to write the figures
            to. Defaults to None.
        num_images (int): How many of the hardest images to show. Defaults to
            12.
        command (str): The command that made the report, for its last
            section.
        config (str | Path, optional): The config of the test, needed to show
            the images. It is Python code and is executed. Defaults to None,
            which means that no config is executed and no images are shown.
        cfg_options (dict, optional): Settings of ``config`` to override.
            Defaults to None.

    Returns:
        list[str]: What is left out, and how to get it.

    Raises:
        UserError: If a file is missing or invalid, or the files do not
            belong together.
    """
    if figures_dir is not None and any(Path(figures_dir).glob('*')):
        raise UserError(f'--figures {figures_dir} is not empty: choose another folder.')
    found = find(open_source(run, predictions_file, config, cfg_options))
    maker = FigureMaker(None if figures_dir is None else Path(figures_dir))
    built = build_sections(found, maker, num_images, command)
    sections = list(track(built, 'Writing the report'))
    write_file(out, render(page_title(found), summary(found), cards(found), sections))
    if json_file is not None:
        mmengine.dump(found.as_dict(), str(json_file), indent=2)
    return [part.text for section in sections for part in section.parts if isinstance(part, Note)]
