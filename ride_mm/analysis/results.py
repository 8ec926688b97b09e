"""What a training run has measured, as one small JSON file."""
import argparse
import json
import re
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Dict, List, Optional, Pattern, Tuple, Union

from mmengine.config import Config

from ride_mm.engine import launch
from ride_mm.engine.config import (find_hook, innermost_dataset, load_config,
                                   type_name)
from ride_mm.engine.dumped_config import read_dumped_config
from ride_mm.utils.atomic_backend import write_file
from ride_mm.utils.errors import UserError
from .scalars import mean_losses, read_scalars, scalar_files

# Where the data lies, what is kept and printed, and by whom: other values of
# these do not change what is trained.
DATA_ACCESS = re.compile(
    r'(.*\.)?(data_root|check_integrity|num_workers|pin_memory'
    r'|persistent_workers)(\..*)?')
HOUSEKEEPING = re.compile(
    DATA_ACCESS.pattern + '|(work_dir|launcher|load_from|resume|log_level'
    r'|visualizer|vis_backends|env_cfg|model_wrapper_cfg|randomness\.seed'
    r'|default_hooks\.(checkpoint|data_check|logger|non_finite|schedule'
    r'|stop_signal|validation_check|visualization))(\..*)?')
# Validations are kept without what only details the groups.
_DETAIL = re.compile(r'.*/((balanced|harmonic|geometric|worst|by_class).*'
                     r'|(many|medium|few)_.*)')
_STEP = re.compile(r'Epoch\(train\) +\[(\d+)\]\[ *\d+/(\d+)\]')


@dataclass
class _Piece:
    """What was logged between a start, or resume, and the next one.

    Attributes:
        config (Config): The config with all options.
        log (str): The text of the log.
        train (dict[int, list[dict]]): The records of each epoch.
        val (dict[int, dict]): The metrics after an epoch.
    """
    config: Config
    log: str
    train: Dict[int, List[dict]]
    val: Dict[int, Dict[str, float]]


def collect_result(work_dir: Union[str, Path],
                   name: Optional[str] = None,
                   command: Optional[str] = None,
                   commit: Optional[str] = None,
                   machine: Optional[str] = None) -> dict:
    """Collect what ``tools/train.py`` left in a work_dir.

    A run that was interrupted has a folder for each time it was resumed.
    They are merged by epoch; what was logged later counts.

    Args:
        work_dir (str | Path): The folder of the run.
        name (str, optional): The name of the result. Defaults to None, which
            means that of the config.
        command (str, optional): The command that repeats the run. Defaults
            to None, which means one made from the config and the options.
        commit (str, optional): The git commit that was trained with.
            Defaults to None.
        machine (str, optional): The machine in words. Defaults to None,
            which means what the log tells.

    Returns:
        dict: The result, ready for :func:`write_result`. Options with the
        value None are set to it or not there. ``seconds`` of an epoch are
        its number of iterations times the mean of the logged times of an
        iteration.

    Raises:
        UserError: If the folder does not hold exactly one run, the run is
            not complete, its command has to be stated, or the name has a
            folder.
    """
    if name is not None and name != Path(name).name:
        raise UserError(f'--name {name}: a result is named without a folder, '
                        'which is that of --out-dir.')
    work_dir = Path(work_dir)
    try:
        return _collect(work_dir, name, command, commit, machine)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{work_dir} is not what tools/train.py writes: '
                        f'{type(error).__name__}: {error}') from error


def _collect(work_dir: Path, name: Optional[str], command: Optional[str],
             commit: Optional[str], machine: Optional[str]) -> dict:
    pieces = _read_pieces(work_dir)
    path = _find_config(work_dir)
    own, cfg = _load_config(path), pieces[-1].config
    epochs = _max_epochs(cfg, path)
    train, val = _merge(pieces, epochs, work_dir)
    options = config_changes(own, cfg)
    seed = int(_stated(pieces[0].log, 'seed'))
    processes = int(_stated(pieces[-1].log, 'GPU number'))
    return dict(
        name=name or path.stem,
        config=path.as_posix(),
        seed=seed,
        data=_describe_data(cfg),
        experts=cfg.model.get('num_experts',
                              cfg.model.get('head', {}).get('num_experts')),
        epochs=epochs,
        epochs_of_config=_max_epochs(own, path),
        options=options,
        command=command
        or _make_command(path, own, cfg, options, seed, processes),
        commit=commit,
        pieces=[
            _describe_piece(piece, machine, options, own) for piece in pieces
        ],
        training_seconds=round(sum(epoch['seconds'] for epoch in train)),
        figures=_final_figures(cfg, val),
        log=dict(
            train=train,
            val=[{
                key: value
                for key, value in record.items() if not _DETAIL.fullmatch(key)
            } for record in val]))


def _read_pieces(work_dir: Path) -> List[_Piece]:
    if not work_dir.is_dir():
        raise UserError(f'there is no work_dir {work_dir}.')
    pieces = [
        piece for piece in map(_read_piece, scalar_files(work_dir)) if piece
    ]
    if not pieces:
        raise UserError(f'{work_dir} holds no training: no '
                        '*/vis_data/scalars.json with an epoch in it.')
    return pieces


def _read_piece(path: Path) -> Optional[_Piece]:
    """Read a piece, unless it is of a test or was killed at its beginning."""
    train, val = read_scalars(path)
    if not train:
        return None
    return _Piece(
        read_dumped_config(path.with_name('config.py')),
        _read_log(path.parents[1]), train, val)


def _read_log(folder: Path) -> str:
    path = folder / f'{folder.name}.log'
    log = path.read_text() if path.is_file() else ''
    if not _STEP.search(log):
        raise UserError(f'{path} is not the log of a training that counts '
                        "epochs, with log_level='INFO'.")
    return log


def _find_config(work_dir: Path) -> Path:
    """Find the file of the config that training dumped into its folder."""
    names = sorted(path.name for path in work_dir.glob('*.py'))
    if len(names) != 1:
        raise UserError(f'{work_dir} should hold the config of one run, found '
                        f'{", ".join(names) or "none"}.')
    found = [Path(names[0]), *sorted(Path('configs').rglob(names[0]))]
    found = [path for path in found if path.is_file()]
    if len(found) != 1:
        raise UserError(f'{work_dir} is a run of {names[0]}. There should be '
                        f'one such config, here or in configs: found '
                        f'{len(found)}.')
    return found[0]


def _load_config(path: Path, options: Optional[dict] = None) -> Config:
    cfg = load_config(str(path), options, is_built=False)
    launch.set_dataloader_defaults(cfg)
    return cfg


def _max_epochs(cfg: Config, path: Path) -> int:
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if epochs is None:
        raise UserError(f'{path} has no `train_cfg.max_epochs`: only results '
                        'of runs that count epochs are collected.')
    return epochs


def _merge(pieces: List[_Piece], epochs: int,
           work_dir: Path) -> Tuple[List[dict], List[dict]]:
    """Merge the pieces, by epoch, into one run without gaps."""
    train, val, iterations = {}, {}, {}
    for piece in pieces:
        train.update(piece.train)
        val.update(piece.val)
        iterations.update(
            (int(epoch), int(num)) for epoch, num in _STEP.findall(piece.log))
    if epochs not in val:
        raise UserError(f'{work_dir} is not complete: {epochs} epochs were '
                        f'asked for, the last one logged is {max(train)}, and '
                        f'there is no validation after epoch {epochs}.')
    missing = set(range(1, epochs + 1)) - set(train)
    if missing:
        raise UserError(f'{work_dir} has a gap: nothing is logged of epoch '
                        f'{min(missing)} ({len(missing)} missing in all).')
    return ([
        _summarize_epoch(epoch, train[epoch], iterations[epoch])
        for epoch in range(1, epochs + 1)
    ], [dict(epoch=epoch, **_rounded(val[epoch])) for epoch in sorted(val)])


def _summarize_epoch(epoch: int, records: List[dict], iterations: int) -> dict:
    values = dict(lr=records[-1]['lr'], **mean_losses(records))
    values['seconds'] = iterations * mean(record['time'] for record in records)
    return dict(epoch=epoch, **_rounded(values))


def _rounded(values: Dict[str, float]) -> Dict[str, float]:
    return {key: float(f'{value:.5g}') for key, value in values.items()}


def config_changes(own: Config,
                   cfg: Config,
                   ignored: Pattern = HOUSEKEEPING) -> Dict[str, Any]:
    """The options, by dotted key, that lead from one config to another.

    Args:
        own (Config): The one config.
        cfg (Config): The other one.
        ignored (Pattern): What is no matter, by key. Defaults to where the
            data lies and what is kept and printed.

    Returns:
        dict: The values in ``cfg``, None where a key is missing there.
    """
    options = {}

    def compare(old, new, key):
        if old == new or ignored.fullmatch(key):
            return
        if old is None and isinstance(new, dict):
            old = {}
        if isinstance(old, dict) and isinstance(new, dict):
            parts = [(name, old.get(name), new.get(name))
                     for name in dict(old, **new)]
        elif _are_alike(old, new):
            parts = zip(range(len(new)), old, new)
        else:
            options[key] = new
            return
        for name, old_part, new_part in parts:
            compare(old_part, new_part, f'{key}.{name}' if key else name)

    compare(_plain(own), _plain(cfg), '')
    return dict(sorted(options.items()))


def _are_alike(old: Any, new: Any) -> bool:
    """Whether these are lists of as many dicts, to compare one by one."""
    return (isinstance(old, list) and isinstance(new, list)
            and len(old) == len(new)
            and all(isinstance(part, dict) for part in old + new))


def _plain(cfg: Config) -> dict:
    """A config as JSON knows it: tuples are lists."""
    return json.loads(json.dumps(cfg.to_dict(), default=str))


def _make_command(path: Path, own: Config, cfg: Config, options: dict,
                  seed: int, processes: int) -> str:
    """Write the command that trains this once more.

    Raises:
        UserError: If ``--cfg-options`` cannot express an option.
    """
    pairs = [f'{key}={_option_text(value)}' for key, value in options.items()]
    parser = argparse.ArgumentParser(parents=[launch.common_arguments()])
    try:
        parsed = parser.parse_args([str(path), *_flagged(pairs)])
        again = _load_config(path, parsed.cfg_options)
    except (UserError, AssertionError, RecursionError):
        # what DictAction makes of a dict, or of brackets within a text
        again = own
    if config_changes(again, cfg):
        raise UserError(
            'the options of this run cannot be written as --cfg-options: ' +
            ', '.join(config_changes(again, cfg)) +
            '. Has the config changed since? Then start in a checkout of the '
            'commit that was trained with. Otherwise state the command with '
            '--command.')
    if seed != own.get('randomness', {}).get('seed'):
        pairs.append(f'randomness.seed={seed}')
    tool = ['python', 'tools/train.py', path.as_posix()]
    if processes > 1:
        tool = ['bash', 'tools/dist_train.sh', path.as_posix(), str(processes)]
    return shlex.join(tool + _flagged(pairs))


def _flagged(pairs: List[str]) -> List[str]:
    return ['--cfg-options', *pairs] if pairs else []


def _option_text(value: Any) -> str:
    if isinstance(value, list):
        return '[' + ','.join(_option_text(part) for part in value) + ']'
    return str(value)


def _stated(log: str, key: str) -> str:
    """What the environment at the beginning of a log states."""
    match = re.search(rf'^ +(?:- )?{key}: (.*)$', log, re.MULTILINE)
    return match.group(1).strip() if match else 'unknown'


def _describe_piece(piece: _Piece, machine: Optional[str], options: dict,
                    own: Config) -> dict:
    """Where and with what versions a piece of the run was trained."""
    described = dict(
        first_epoch=min(piece.train),
        last_epoch=max(piece.train),
        machine=machine or _describe_machine(piece.log),
        python=_stated(piece.log, 'Python').split()[0],
        torch=_stated(piece.log, 'PyTorch'),
        torchvision=_stated(piece.log, 'TorchVision'),
        mmengine=_stated(piece.log, 'MMEngine'))
    changed = config_changes(own, piece.config)
    if changed != options:
        described['options'] = changed
    return described


def _describe_machine(log: str) -> str:
    processes = int(_stated(log, 'GPU number'))
    gpus = re.findall(r'^ +GPU [\d,]+: (.*)$', log, re.MULTILINE)
    if gpus:
        return f'{processes} x {gpus[0].strip()}'
    text = f"CPU with {_stated(log, 'CPU capability usage')}"
    return text if processes == 1 else f'{text}, {processes} processes'


def _describe_data(cfg: Config) -> dict:
    dataset = innermost_dataset(cfg.train_dataloader)
    described = dict(type=type_name(dataset))
    if 'imb_factor' in dataset:
        described['imbalance'] = round(1 / dataset.imb_factor)
    if 'max_count' in dataset:
        described['max_count'] = dataset.max_count
    return described


def _final_figures(cfg: Config, val: List[dict]) -> Dict[str, dict]:
    """The figures of the last epoch, and of the end of stage 1 before it."""
    final = val[-1]
    two_stage = find_hook(cfg, 'TwoStageHook')
    if two_stage is not None and two_stage['begin'] < final['epoch']:
        experts = [r for r in val if r['epoch'] <= two_stage['begin']]
        if experts:
            return dict(stage_1=experts[-1], final=final)
    return dict(final=final)


def write_result(result: dict, out_dir: Union[str, Path]) -> Path:
    """Write a result into its file.

    Args:
        result (dict): What :func:`collect_result` returns.
        out_dir (str | Path): The folder of the results.

    Returns:
        Path: The file, ``<name>_seed<seed>.json``.

    Raises:
        UserError: If there is such a file with another content.
    """
    path = Path(out_dir) / f"{result['name']}_seed{result['seed']}.json"
    text = _to_text(result) + '\n'
    if path.exists() and path.read_text() != text:
        raise UserError(f'{path} holds another result and is not overwritten: '
                        'remove it, or give this one a --name.')
    write_file(path, text)
    return path


def _to_text(value: Any, indent: str = '') -> str:
    """JSON with a line for each dict or list of plain values."""
    parts = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list)) or not any(
            isinstance(part, (dict, list)) for part in parts):
        return json.dumps(value)
    inner = indent + ' '
    if isinstance(value, dict):
        lines = [
            f'{inner}{json.dumps(key)}: {_to_text(part, inner)}'
            for key, part in value.items()
        ]
        return '{\n' + ',\n'.join(lines) + f'\n{indent}}}'
    lines = [f'{inner}{_to_text(part, inner)}' for part in value]
    return '[\n' + ',\n'.join(lines) + f'\n{indent}]'


def read_results(folder: Union[str, Path]) -> Dict[str, List[dict]]:
    """Read the results of a folder.

    Args:
        folder (str | Path): A folder with files of :func:`write_result`.

    Returns:
        dict[str, list[dict]]: The results by name, those that differ only in
        their seed under one name, by seed.

    Raises:
        UserError: If a file is not a result, or if results of one name were
            trained differently.
    """
    groups = defaultdict(list)
    for path in sorted(Path(folder).glob('*_seed*.json')):
        result = _read_result(path)
        groups[result['name']].append(result)
    for name, results in groups.items():
        results.sort(key=lambda result: result['seed'])
        for key in ('config', 'data', 'epochs', 'options'):
            if any(result[key] != results[0][key] for result in results):
                raise UserError(f'{folder}: the results named {name} differ '
                                f'in `{key}`. Give one of them another name.')
    return dict(groups)


def _read_result(path: Path) -> dict:
    try:
        result = json.loads(path.read_text())
        stem = f"{result['name']}_seed{result['seed']}"
        result['figures']['final']
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f'{path} is not a result of '
                        f'tools/analysis/collect_result.py: {e!r}') from e
    if path.stem != stem:
        raise UserError(f'{path} holds the result {stem}.')
    return result
