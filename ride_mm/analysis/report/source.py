"""The files that a report is made from, and whether they belong together."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ride_mm.analysis.predictions import Predictions, read_own_predictions
from ride_mm.analysis.run_options import options_of_test
from ride_mm.engine import launch
from ride_mm.engine.config import is_ride, load_config
from ride_mm.engine.dumped_config import read_dumped_config
from ride_mm.engine.scalars import TrainingCurves, read_curves
from ride_mm.evaluation import fingerprint
from ride_mm.utils.errors import UserError


@dataclass(frozen=True)
class Source:
    """The content of the files that a report is made from.

    Attributes:
        predictions (Predictions): Predictions for N test images.
        file (Path): Their file.
        config (Config, optional): The config of the test: the one named by
            the user, else what can be read without executing it, else that
            of the training. None if there is neither.
        training (Config, optional): The config of the training, or
            ``config`` without a work_dir.
        curves (TrainingCurves, optional): The course of the training.
        data (Config, optional): The config named by the user, the only one
            from which a dataset is built.
    """

    predictions: Predictions
    file: Path
    config: Config | None
    training: Config | None
    curves: TrainingCurves | None
    data: Config | None


def test_command(
    config: str | Path, checkpoint: str | Path, out: str | Path, all_experts: bool = True
) -> str:
    """Return the command that writes predictions."""
    option = '--all-experts ' if all_experts else ''
    return f'python tools/test.py {config} {checkpoint} {option}--out {out}'


def open_source(
    run: str | Path,
    predictions_file: str | Path | None = None,
    config: str | Path | None = None,
    cfg_options: dict | None = None,
) -> Source:
    """Read and check the files that a report is made from.

    Args:
        run (str | Path): The work_dir of a training, or a predictions file.
        predictions_file (str | Path, optional): The predictions, if ``run``
            is a work_dir. Defaults to None, which means its
            ``predictions.npz``.
        config (str | Path, optional): The config of the test, which is
            executed. Defaults to None, which means that no config is
            executed: dumped configs are read as data.
        cfg_options (dict, optional): Settings of ``config`` to override.
            Defaults to None.

    Returns:
        Source: The content of the files.

    Raises:
        UserError: If a file is missing or invalid, or the files do not
            belong together.
    """
    run = Path(run)
    is_work_dir = run.is_dir()
    file = Path(predictions_file or run / 'predictions.npz') if is_work_dir else run
    if is_work_dir and not file.is_file():
        raise _no_predictions(run, file)
    if not file.is_file():
        raise UserError(
            f'there is no {run}: expected the work_dir of a training, or a file that '
            'tools/test.py --out wrote.'
        )
    if predictions_file is not None and not is_work_dir:
        raise UserError(
            f'--predictions needs a work_dir, but {run} is a file: pass only one of the two.'
        )
    predictions = read_own_predictions(file)
    curves = None
    if is_work_dir:
        _check_weights(run, file, predictions.run, predictions.num_experts_used is not None)
        curves = read_curves(run)
    training = None if curves is None else read_dumped_config(curves.config)
    data = None
    if config is not None:
        options = options_of_test(file, predictions.run, cfg_options)
        data = load_config(str(config), options, is_built=False)
    tested = data or _read_config(predictions.run)
    return Source(predictions, file, tested or training, training or tested, curves, data)


def _read_config(run: dict) -> Config | None:
    """The config that the predictions file names, if it is a dumped one."""
    try:
        config = read_dumped_config(run['config'])
        config.merge_from_dict(run['options'])
    except (UserError, OSError, AssertionError, KeyError, TypeError, ValueError):
        return None
    return config if isinstance(config.get('model'), dict) else None


def _no_predictions(work_dir: Path, file: Path) -> UserError:
    checkpoints = launch.find_checkpoints(str(work_dir))
    configs = sorted(work_dir.glob('*.py'), key=lambda p: p.stat().st_mtime)
    if not checkpoints or not configs:
        missing = 'checkpoint' if configs else 'config'
        return UserError(
            f'{work_dir} contains neither {file.name} nor a {missing} to create it with: is it '
            'the work_dir of a training?'
        )
    has_experts = is_ride(read_dumped_config(configs[-1]))
    command = test_command(configs[-1], checkpoints[-1], file, has_experts)
    return UserError(f'there are no predictions {file}. Create them with `{command}`.')


def _check_weights(work_dir: Path, file: Path, run: dict, has_experts: bool) -> None:
    """Check that the predictions are from the last weights of the run, or
    from weights derived from them (best, calibrated)."""
    numbered = [
        path for path in launch.find_checkpoints(str(work_dir)) if not path.name.startswith('best_')
    ]
    if not numbered or _with_weights(numbered[-1:], run):
        return
    if _with_weights(set(work_dir.glob('*.pth')) - set(numbered), run):
        return
    newest, older = numbered[-1], _with_weights(numbered, run)
    again = test_command(run['config'], newest, 'FILE.npz', has_experts)
    alone = (
        f'report on the predictions alone, `python tools/analysis/report.py {file} -o FILE.html`.'
    )
    if older is not None:
        raise UserError(
            f'{file} belongs to an older checkpoint of this run, {older.name}; the newest is '
            f'{newest.name}. Test the newest, `{again}`, or {alone}'
        )
    raise UserError(
        f'{file} belongs to weights that are not in {work_dir}: {run["checkpoint"]}, fingerprint '
        f'{run["weights"]}. Test {newest} with its own config, or {alone}'
    )


def _with_weights(paths: Iterable[Path], run: dict) -> Path | None:
    """The first checkpoint with the weights of a run."""
    return next((path for path in paths if fingerprint(str(path)) == run['weights']), None)
