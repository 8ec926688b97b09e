"""Reading a config together with the options of the command line."""

import argparse
import os
import os.path as osp
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import Registry
from mmpretrain import registry

from ride_mm.utils.errors import UserError, nearest
from ride_mm.utils.rank import is_main_process

from .config_check import TOP_LEVEL, check_config

# How the training images of a data set are chosen.
_PROFILE = ('imb_type', 'imb_factor', 'max_count')
# Where the parts of this plugin are registered.
_SCOPE = 'mmpretrain'
# A typo differs in a letter or two; a new key is less alike than this.
_TYPO_RATIO = 0.85
# The names of this plugin's hooks in `default_hooks`.
HOOK_NAMES = dict(
    ClassCountsHook='class_counts',
    DeferredReweightingHook='reweighting',
    TwoStageHook='two_stage',
    RouterCacheHook='router_cache',
    NewClassifiersHook='new_classifiers',
)


def load_config(path: str, options: dict | None = None, is_built: bool = True) -> Config:
    """Read a config and merge the options of the command line into it.

    Args:
        path (str): The config file.
        options (dict, optional): ``--cfg-options``, by dotted key. Defaults
            to None.
        is_built (bool): Whether something will be built of the config, so
            that its parts are checked; otherwise it is only read. Defaults
            to True.

    Returns:
        Config: The config. A key among the options that looks like a typo is
        merged as mmengine does, with a warning.

    Raises:
        UserError: If there is no such config, or none in the file, an option
            cannot be merged or nothing would read it, or
            :func:`~ride_mm.engine.config_check.check_config` refuses it.
    """
    check_config_path(path)
    try:
        cfg = Config.fromfile(path)
    except (OSError, SyntaxError) as error:
        raise UserError(f'{path} cannot be read as a config: {error}') from error
    except ModuleNotFoundError as error:
        if error.name != 'pkg_resources':
            raise
        raise UserError(
            f'{path}: MMEngine finds the configs of other packages, as in '
            "_base_='mmpretrain::...', with pkg_resources, which setuptools "
            '82 removed. Install setuptools below 82: pip install '
            "'setuptools<82'"
        ) from error
    except (AttributeError, KeyError) as error:
        raise _old_config_error(path, error) or error  # noqa: B904
    hints = []
    if options:
        check_top_level(cfg, options)
        check_hook_options(cfg, options)
        hints = typo_hints(cfg, options)
        merge_options(cfg, options, path)
    name_types(cfg)
    if is_built:
        check_config(cfg)
    for hint in hints:
        warn(hint)
    move_compile(cfg)
    name_hooks(cfg)
    follow_training_set(cfg)
    return cfg


def merge_options(cfg: Config, options: dict, path: str) -> None:
    """Merge options of the command line into a config.

    Raises:
        UserError: If one cannot be merged; ``path`` names the config.
    """
    try:
        cfg.merge_from_dict(options)
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        for key in options:
            place = _place_of_values(cfg, key)
            if place:
                raise UserError(
                    f'--cfg-options {key}: {place} of {path} can only be set as a whole'
                ) from error
        raise UserError(f'--cfg-options {options} does not fit {path}: {error}') from error


def _place_of_values(cfg: Config, key: str) -> str | None:
    """The setting that an option reaches into, though it is no dict and no
    list of dicts."""
    node, parts = cfg, key.split('.')
    for i, part in enumerate(parts):
        if isinstance(node, list) and part.isdigit():
            node = node[int(part)] if int(part) < len(node) else {}
            if not isinstance(node, dict):
                return '.'.join(parts[:i])
        elif not isinstance(node, (dict, Config)):
            return '.'.join(parts[:i])
        elif part not in node:
            return None
        else:
            node = node[part]
    return None


def warn(message: str) -> None:
    """Print a warning before there is a log, once for all processes."""
    if is_main_process():
        print(f'warning: {message}', file=sys.stderr, flush=True)


def _old_config_error(path: str, error: Exception) -> UserError | None:
    """What to change in a config for an earlier version of this plugin."""
    if 'custom_hooks' in str(error):
        return UserError(
            f'{path}: _base_.custom_hooks does not exist. The hooks of the '
            'base config have names: change them in default_hooks, as in '
            'default_hooks=dict(two_stage=dict(begin=40), reweighting=None)'
        )
    if 'Duplicate key' in str(error) and 'default_hooks' in str(error):
        return UserError(
            f"{path}: remove '_base_/default_runtime.py' from _base_: the schedule inherits from it"
        )
    return None


def check_config_path(path: str) -> None:
    """Check that a config exists; name the nearest one if not.

    Raises:
        UserError: If ``path`` is not a file.
    """
    if osp.isfile(path):
        return
    known = {}
    for folder in (Path(path).parent, Path('configs')):
        for config in sorted(folder.glob('*.py')):
            known.setdefault(config.stem, str(config))
    hint = nearest(Path(path).stem, known)
    for stem, config in known.items():
        hint = hint.replace(repr(stem), config)
    raise UserError(f'there is no config {path} (relative to {os.getcwd()}).{hint}')


class _OptionAction(DictAction):
    """Tells in one line what MMEngine cannot read as a value."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (AssertionError, RecursionError, IndexError) as error:
                raise UserError(
                    f'--cfg-options {value}: this value cannot be read. Lists '
                    'hold values and lists, as in "[a,b]", not dicts; an '
                    'option sets one key of a dict, as in '
                    'KEY.0.type=NAME'
                ) from error


def add_cfg_options(
    parser: argparse.ArgumentParser, text: str, default: dict | None = None
) -> None:
    """Let a tool take ``--cfg-options``, for :func:`load_config`.

    Args:
        parser (ArgumentParser): Of the tool.
        text (str): The help.
        default (dict, optional): What it is without. Defaults to None.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=key_value,
        action=_OptionAction,
        default=default,
        metavar='KEY=VALUE',
        help=text,
    )


def positive(text: str) -> int:
    """Read a number of at least 1 for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, found {text!r}')
    return int(text)


def key_value(text: str) -> str:
    """Check an argument of ``--cfg-options`` for argparse."""
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, found {text!r}')
    return text


def check_top_level(cfg: Config, options: dict) -> None:
    """Check that something reads what the options set, as nothing does with
    ``num_experts=4``, ``foo=1`` or ``data_root=...``, a variable of the
    config file.

    Raises:
        UserError: If there is an option that nothing reads, with the place
            of a setting of its name or the nearest one.
    """
    read = {key: cfg[key] for key in cfg if key in TOP_LEVEL}
    for key in sorted(options):
        name = key.split('.')[0]
        if name in TOP_LEVEL:
            continue
        places = list(map(repr, _places(read, name))) if name == key else []
        if places or name not in cfg:
            hint = nearest(name, TOP_LEVEL)
            if places:
                hint = f' Did you mean {" or ".join(places)}?'
            raise UserError(f'--cfg-options {key}: nothing reads {name} at the top level.{hint}')


def _places(node, name: str, prefix: str = '') -> Iterator[str]:
    """Dotted keys of all settings of a name in a config."""
    items = dict(enumerate(node)) if isinstance(node, (list, tuple)) else node
    if not isinstance(items, dict):
        return
    for key, value in items.items():
        if key == name:
            yield f'{prefix}{key}'
        yield from _places(value, name, f'{prefix}{key}.')


def typo_hints(cfg: Config, options: dict) -> list[str]:
    """Find options whose key is not in the config but close to one.

    New keys are legitimate (``model.backbone.frozen_stages=1``), so only
    what is nearly an existing key is reported.

    Args:
        cfg (Config): The config before the options are merged.
        options (dict): The options, by dotted key.

    Returns:
        List[str]: One line for each suspicious key.
    """
    hints = []
    for key in options:
        node, parts = cfg._cfg_dict, key.split('.')
        for i, part in enumerate(parts):
            if isinstance(node, (list, tuple)) and part.isdigit():
                node = node[int(part)] if int(part) < len(node) else None
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                known = node if isinstance(node, dict) else ()
                hint = nearest(part, known, cutoff=_TYPO_RATIO)
                if hint:
                    where = '.'.join(parts[: i + 1])
                    hints.append(
                        f'--cfg-options {key}: {where} is not in the config and was added.{hint}'
                    )
                break
    return hints


def check_hook_options(cfg: Config, options: dict) -> None:
    """Check that no option changes a hook that is not in ``custom_hooks``.

    Raises:
        UserError: If there is one.
    """
    hooks = cfg.get('custom_hooks') or []
    for key in options:
        parts = key.split('.')
        if (
            parts[0] == 'custom_hooks'
            and parts[1:]
            and not (parts[1].isdigit() and int(parts[1]) < len(hooks))
        ):
            names = ', '.join(f'default_hooks.{name}' for name in HOOK_NAMES.values())
            raise UserError(
                f'--cfg-options {key}: custom_hooks of the config has '
                f'{len(hooks)} hooks. Hooks of ride_mm have names: {names}'
            )


def name_types(cfg: Config) -> None:
    """Put names in place of the classes of a config of MMEngine's new style.

    Both are built alike, but only names can be looked up in a registry,
    written into a file and compared with those of a dumped config.

    Args:
        cfg (Config): The config, changed in place.
    """
    scope = '' if cfg.get('default_scope') == _SCOPE else f'{_SCOPE}.'

    def name(node: Any) -> None:
        if isinstance(node, dict):
            kind = node.get('type')
            if hasattr(kind, '__qualname__'):
                node['type'] = (
                    f'{scope}{kind.__name__}'
                    if _registered(kind)
                    else f'{kind.__module__}.{kind.__qualname__}'
                )
            node = list(node.values())
        for item in node if isinstance(node, (list, tuple)) else ():
            name(item)

    name(cfg._cfg_dict)


def _registered(kind: Any) -> bool:
    """Whether a class is what MMPretrain's registries find by its name."""
    for known in vars(registry).values():
        if isinstance(known, Registry):
            found = known.module_dict.get(kind.__name__)
            if found is None and known.parent is not None:
                found = known.parent.module_dict.get(kind.__name__)
            if found is kind:
                return True
    return False


def type_name(part: dict | None) -> str:
    """Name of the class that a part of a config is of, '' without one.

    All that compares types asks this: the config may have the name alone,
    the name with its module or scope, or the class itself.
    """
    kind = (part or {}).get('type', '')
    return kind.split('.')[-1] if isinstance(kind, str) else kind.__name__


def find_hook(cfg: Config, kind: str) -> dict | None:
    """Find the config of a hook.

    Args:
        cfg (Config): The config of a run.
        kind (str): Name of the hook's class.

    Returns:
        Optional[dict]: The hook's own config, or None if there is none.
    """
    return next((hook for _, hook in hook_places(cfg) if type_name(hook) == kind), None)


def hook_places(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Dotted key and config of every hook that is not taken out."""
    places = [
        (f'default_hooks.{name}', hook) for name, hook in (cfg.get('default_hooks') or {}).items()
    ]
    places += [
        (f'custom_hooks.{index}', hook) for index, hook in enumerate(cfg.get('custom_hooks') or [])
    ]
    for key, hook in places:
        if hook is not None:
            yield key, hook


def name_hooks(cfg: Config) -> None:
    """Move this plugin's hooks from ``custom_hooks``, where configs of its
    first version have them, to their names in ``default_hooks``.

    Raises:
        UserError: If a hook has its place in ``default_hooks`` already.
    """
    named = {}
    for index, hook in enumerate(cfg.get('custom_hooks') or []):
        name = HOOK_NAMES.get(type_name(hook))
        if name is None:
            continue
        if (cfg.get('default_hooks') or {}).get(name) is not None:
            raise UserError(
                f'custom_hooks.{index} is a second {type_name(hook)}: change '
                f'default_hooks.{name} instead, or set it to None to remove '
                'it'
            )
        named[name] = hook
    if not named:
        return
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if type_name(hook) not in HOOK_NAMES]
    cfg.default_hooks = dict(cfg.get('default_hooks') or {}, **named)
    warn(
        f'{", ".join(named)} moved from custom_hooks to default_hooks, where '
        'the config should define them under these names'
    )


def as_list(schedulers: list[dict] | dict | None) -> list[dict]:
    """A list of ``param_scheduler``, which may be one scheduler or none."""
    if isinstance(schedulers, dict):
        return [schedulers]
    return schedulers or []


def move_compile(cfg: Config) -> None:
    """Let RIDEClassifier do what a top-level ``compile`` asks for.

    mmengine would compile the whole ``train_step``, whose data samples and
    optimizer break the graph; the classifier compiles its tensor part.
    """
    if is_ride(cfg) and 'compile' in cfg:
        cfg.model.compile = cfg.pop('compile')


def is_ride(cfg: Config) -> bool:
    """Whether the model of a config is a RIDEClassifier."""
    return type_name(cfg.get('model')) == 'RIDEClassifier'


def innermost_dataset(loader: dict | None) -> dict:
    """Config of a data loader's data set, without its wrappers."""
    dataset = (loader or {}).get('dataset', {})
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def follow_training_set(cfg: Config) -> None:
    """Tell validation and test set how the training images were chosen.

    Metrics group the classes by their training images, so another imbalance
    is one option, ``train_dataloader.dataset.imb_factor``.
    """
    train = innermost_dataset(cfg.get('train_dataloader'))
    for name in ('val_dataloader', 'test_dataloader'):
        dataset = innermost_dataset(cfg.get(name))
        if type_name(dataset) == type_name(train):
            for key in _PROFILE:
                if key in train:
                    dataset.setdefault(key, train[key])
