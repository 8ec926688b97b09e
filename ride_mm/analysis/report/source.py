"""What a report is made of, and whether it belongs together."""

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

NAME = 'predictions.npz'


@dataclass(frozen=True)
class Source:
    """What a report is made of.

    Attributes:
        predictions (Predictions): Of N test images, with ``run``.
        file (Path): Where they come from.
        config (Config, optional): The config that they were made with: the
            one that the user has named, or what can be read without running
            it. None if there is neither.
        training (Config, optional): The config of the training; that of the
            predictions where there is no work_dir.
        curves (TrainingCurves, optional): The course of the training.
        data (Config, optional): Where the pictures are: the config that the
            user has named. Nothing is built from another one.
    """

    predictions: Predictions
    file: Path
    config: Config | None
    training: Config | None
    curves: TrainingCurves | None = None
    data: Config | None = None

    @property
    def test_command(self) -> str:
        """str: The command that writes predictions with all experts."""
        run = self.predictions.run
        return test_command(run['config'], run['checkpoint'], 'FILE.npz')


def test_command(
    config: str | Path, checkpoint: str | Path, out: str | Path, all_experts: bool = True
) -> str:
    """Write the command that makes predictions."""
    option = '--all-experts ' if all_experts else ''
    return f'python tools/test.py {config} {checkpoint} {option}--out {out}'


def open_source(
    run: str | Path,
    predictions_file: str | Path | None = None,
    config: str | Path | None = None,
    cfg_options: dict | None = None,
) -> Source:
    """Find and check what a report is made of.

    Args:
        run (str | Path): The work_dir of a training, or a file of
            predictions.
        predictions_file (str | Path, optional): The predictions, where
            ``run`` is a work_dir. Defaults to None, which means its
            ``predictions.npz``.
        config (str | Path, optional): The config of the test, which is run.
            Defaults to None, which means that no Python of any config is
            run: what its dump says is read.
        cfg_options (dict, optional): Settings of it to override. Defaults to
            None.

    Returns:
        Source: What was found.

    Raises:
        UserError: If there are no such files, or they are not what they
            should be, or do not belong together.
    """
    run = Path(run)
    if run.is_dir():
        return _open_work_dir(run, Path(predictions_file or run / NAME), config, cfg_options)
    if not run.is_file():
        raise UserError(
            f'there is no {run}: expected the work_dir of a '
            'training, or a file that tools/test.py --out wrote.'
        )
    if predictions_file is not None:
        raise UserError(
            f'--predictions needs a work_dir, but {run} is a file: pass only one of the two.'
        )
    predictions = read_own_predictions(run)
    data = _load_config(run, predictions.run, config, cfg_options)
    described = data or _read_config(predictions.run)
    return Source(predictions, run, described, described, data=data)


def _open_work_dir(
    work_dir: Path, file: Path, config: str | Path | None, cfg_options: dict | None
) -> Source:
    if not file.is_file():
        raise _no_predictions(work_dir, file)
    predictions = read_own_predictions(file)
    _check_weights(work_dir, file, predictions.run, predictions.num_experts_used is not None)
    curves = read_curves(work_dir)
    training = None if curves is None else read_dumped_config(curves.config)
    data = _load_config(file, predictions.run, config, cfg_options)
    tested = data or _read_config(predictions.run)
    return Source(predictions, file, tested or training, training or tested, curves, data)


def _load_config(
    file: Path, run: dict, config: str | Path | None, cfg_options: dict | None
) -> Config | None:
    """The config that the user has named."""
    if config is None:
        return None
    options = options_of_test(file, run, cfg_options)
    return load_config(str(config), options, is_built=False)


def _read_config(run: dict) -> Config | None:
    """What the config says that the file names, if it is a dumped one."""
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
            f'{work_dir} holds neither {file.name} nor a '
            f'{missing} to create it with: is it the work_dir of '
            'a training?'
        )
    has_experts = is_ride(read_dumped_config(configs[-1]))
    command = test_command(configs[-1], checkpoints[-1], file, has_experts)
    return UserError(f'there are no predictions {file}. Create them with `{command}`.')


def _check_weights(work_dir: Path, file: Path, run: dict, has_experts: bool) -> None:
    """Check that the predictions are of the run's last weights, or of others
    that were made of them (best, calibrated)."""
    numbered = [
        path for path in launch.find_checkpoints(str(work_dir)) if not path.name.startswith('best_')
    ]
    if numbered and fingerprint(str(numbered[-1])) == run['weights']:
        return
    others = set(work_dir.glob('*.pth')) - set(numbered)
    if not numbered or _with_weights(others, run) is not None:
        return
    newest = numbered[-1]
    again = test_command(run['config'], newest, 'FILE.npz', has_experts)
    alone = (
        f'report on the predictions alone, `python tools/analysis/report.py {file} -o FILE.html`.'
    )
    older = _with_weights(numbered, run)
    if older is not None:
        raise UserError(
            f'{file} belongs to an older checkpoint of this run, '
            f'{older.name}; the newest is {newest.name}. Test the '
            f'newest, `{again}`, or {alone}'
        )
    raise UserError(
        f'{file} belongs to weights that are not in {work_dir}: '
        f'{run["checkpoint"]}, fingerprint {run["weights"]}. Test {newest} '
        f'with its own config, or {alone}'
    )


def _with_weights(paths: Iterable[Path], run: dict) -> Path | None:
    found = (p for p in paths if fingerprint(str(p)) == run['weights'])
    return next(found, None)
