"""Read a config together with the options of the command line."""

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

from ride_mm.utils.config_names import config_file
from ride_mm.utils.errors import UserError, nearest
from ride_mm.utils.rank import is_main_process

from .config_check import TOP_LEVEL, check_config

# Settings that choose the training images of a dataset.
_PROFILE = ('imb_type', 'imb_factor', 'max_count')
# The scope of this plugin's registries.
_SCOPE = 'mmpretrain'
# A typo differs in a letter or two; less similar keys are taken as new.
_TYPO_RATIO = 0.85
# The names of this plugin's hooks in `default_hooks`.
HOOK_NAMES = dict(
    ClassCountsHook='class_counts',
    DeferredReweightingHook='reweighting',
    TwoStageHook='two_stage',
    RouterCacheHook='router_cache',
    TrunkCacheHook='trunk_cache',
    ClassMeanInitHook='class_means',
    NewClassifiersHook='new_classifiers',
)


def load_config(path: str, options: dict | None = None, is_built: bool = True) -> Config:
    """Read a config and merge the options of the command line into it.

    Args:
        path (str): The config file, or a name such as
            ``ride_mm::ride_r50_imagenet_lt.py``.
        options (dict, optional): ``--cfg-options``, by dotted key. A key that
            looks like a typo is merged, with a warning. Defaults to None.
        is_built (bool): Whether the config will be built, and so is checked.
            Defaults to True.

    Returns:
        Config: The config.

    Raises:
        UserError: If the file is missing or not a config, an option cannot be
            merged or would have no effect, or
            :func:`~ride_mm.engine.config_check.check_config` rejects the config.
    """
    path = config_file(path)
    if not osp.isfile(path):
        raise UserError(f'there is no config {path} (relative to {os.getcwd()}).{_similar(path)}')
    try:
        cfg = Config.fromfile(path)
    except (OSError, SyntaxError) as error:
        raise UserError(f'{path} cannot be read as a config: {error}') from error
    except ModuleNotFoundError as error:
        if error.name != 'pkg_resources':
            raise
        raise UserError(
            f"{path}: MMEngine finds the configs of other packages, as in _base_='mmpretrain::...',"
            ' with pkg_resources, which setuptools 82 removed. Install setuptools below 82: pip '
            "install 'setuptools<82'"
        ) from error
    except ImportError as error:
        if not str(error).startswith('Failed to import custom modules'):
            raise
        raise UserError(
            f'{path}: a module of custom_imports cannot be imported: {error.__cause__}. Modules '
            'beside the config are found with PYTHONPATH=FOLDER before the command'
        ) from error
    except (AttributeError, KeyError) as error:
        # a config for an earlier version of this plugin
        if 'custom_hooks' in str(error):
            raise UserError(
                f'{path}: _base_.custom_hooks does not exist. The hooks of the base config have '
                'names: change them in default_hooks, as in '
                'default_hooks=dict(two_stage=dict(begin=40), reweighting=None)'
            ) from error
        if 'Duplicate key' in str(error) and 'default_hooks' in str(error):
            raise UserError(
                f"{path}: remove '_base_/default_runtime.py' from _base_: the schedule inherits "
                'from it'
            ) from error
        raise
    hints = []
    if options:
        check_keys(cfg, options)
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


def _similar(path: str) -> str:
    known: dict[str, str] = {}
    for folder in (Path(path).parent, Path('configs')):
        for config in sorted(folder.glob('*.py')):
            known.setdefault(config.stem, str(config))
    hint = nearest(Path(path).stem, known)
    for stem, name in known.items():
        hint = hint.replace(repr(stem), name)
    return hint


def warn(message: str) -> None:
    """Print a warning on rank 0, before there is a log."""
    if is_main_process():
        print(f'warning: {message}', file=sys.stderr, flush=True)


class _OptionAction(DictAction):
    """Reports values that MMEngine cannot parse in one line."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (AssertionError, RecursionError, IndexError) as error:
                raise UserError(
                    f'--cfg-options {value}: this value cannot be read. Lists hold values and '
                    'lists, as in "[a,b]", not dicts; an option sets one key of a dict, as in '
                    'KEY.0.type=NAME'
                ) from error


def add_cfg_options(
    parser: argparse.ArgumentParser, text: str, default: dict | None = None
) -> None:
    """Add ``--cfg-options``, for :func:`load_config`, to the parser of a tool.

    Args:
        parser (ArgumentParser): The parser.
        text (str): The help text.
        default (dict, optional): The default. Defaults to None.
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
    """Parse a positive integer, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, found {text!r}')
    return int(text)


def key_value(text: str) -> str:
    """Check that an argument has the form KEY=VALUE, for argparse."""
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, found {text!r}')
    return text


def merge_options(cfg: Config, options: dict, path: str) -> None:
    """Merge options of the command line into a config.

    Raises:
        UserError: If an option cannot be merged; ``path`` names the config.
    """
    try:
        cfg.merge_from_dict(options)
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        for key in options:
            place = _place_of_value(cfg, key)
            if place:
                raise UserError(
                    f'--cfg-options {key}: {place} of {path} can only be set as a whole'
                ) from error
        raise UserError(f'--cfg-options {options} does not fit {path}: {error}') from error


def follow_key(cfg: Config, key: str) -> tuple[Any, list[str]]:
    """Follow a dotted key into a config, as far as the config has it.

    Args:
        cfg (Config): The config.
        key (str): The key.

    Returns:
        tuple[Any, list[str]]: The last node, and the rest of the key.
    """
    node, parts = cfg._cfg_dict, key.split('.')
    while parts:
        if isinstance(node, dict) and parts[0] in node:
            node = node[parts[0]]
        elif isinstance(node, list) and parts[0].isdigit() and int(parts[0]) < len(node):
            node = node[int(parts[0])]
        else:
            break
        parts = parts[1:]
    return node, parts


def _place_of_value(cfg: Config, key: str) -> str | None:
    """Dotted key of the setting that ``key`` reaches into, if that is neither
    a dict nor a list of dicts."""
    node, rest = follow_key(cfg, key)
    done = key.split('.')[: key.count('.') + 1 - len(rest)]
    if done and done[-1].isdigit() and not isinstance(node, dict):
        return '.'.join(done[:-1])
    if not rest or isinstance(node, dict) or (isinstance(node, list) and rest[0].isdigit()):
        return None
    return '.'.join(done)


def check_keys(cfg: Config, options: dict) -> None:
    """Check that something reads what the options set.

    Nothing reads ``num_experts=4``, ``foo=1``, ``data_root=...`` (a variable of
    the config file), or a hook that is not in ``custom_hooks``.

    Raises:
        UserError: If nothing reads an option. The message suggests settings of
            this name, or the nearest name.
    """
    read = {key: cfg[key] for key in cfg if key in TOP_LEVEL}
    for key in sorted(options):
        name, _, rest = key.partition('.')
        if name == 'custom_hooks' and len(follow_key(cfg, key)[1]) >= key.count('.') > 0:
            names = ', '.join(f'default_hooks.{name}' for name in HOOK_NAMES.values())
            raise UserError(
                f'--cfg-options {key}: custom_hooks of the config has '
                f'{len(cfg.get("custom_hooks") or [])} hooks. Hooks of ride_mm have names: {names}'
            )
        if name in TOP_LEVEL:
            continue
        places = [] if rest else list(map(repr, _places(read, name)))
        hint = f' Did you mean {" or ".join(places)}?' if places else nearest(name, TOP_LEVEL)
        if places or name not in cfg:
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
    """Find options whose key is not in the config but similar to one that is.

    Other new keys are legitimate (``model.backbone.frozen_stages=1``).

    Args:
        cfg (Config): The config before the options are merged.
        options (dict): The options, by dotted key.

    Returns:
        list[str]: A message for each of these options.
    """
    hints = []
    for key in options:
        node, rest = follow_key(cfg, key)
        if rest and isinstance(node, dict):
            hint = nearest(rest[0], node, cutoff=_TYPO_RATIO)
            if hint:
                where = '.'.join(key.split('.')[: key.count('.') + 2 - len(rest)])
                hints.append(
                    f'--cfg-options {key}: {where} is not in the config and was added.{hint}'
                )
    return hints


def name_types(cfg: Config) -> None:
    """Replace the classes in a config of MMEngine's new style by their names.

    Both can be built, but only names can be looked up in a registry, written to
    a file and compared with a dumped config.

    Args:
        cfg (Config): The config, changed in place.
    """
    scope = '' if cfg.get('default_scope') == _SCOPE else f'{_SCOPE}.'

    def name(node: Any) -> None:
        if isinstance(node, dict):
            kind: Any = node.get('type')
            if hasattr(kind, '__qualname__'):
                known = f'{scope}{kind.__name__}'
                other = f'{kind.__module__}.{kind.__qualname__}'
                node['type'] = known if _is_registered(kind) else other
            node = list(node.values())
        for item in node if isinstance(node, (list, tuple)) else ():
            name(item)

    name(cfg._cfg_dict)


def _is_registered(kind: Any) -> bool:
    """Whether MMPretrain's registries find a class by its name."""
    registries = [known for known in vars(registry).values() if isinstance(known, Registry)]
    return any(known.get(kind.__name__) is kind for known in registries)


def type_name(part: dict | None) -> str:
    """Name of the class of a part of a config, '' if it has no type.

    A config may give the name alone, the name with its module or scope, or the
    class itself.
    """
    kind = (part or {}).get('type', '')
    return kind.split('.')[-1] if isinstance(kind, str) else kind.__name__


def find_hook(cfg: Config, kind: str) -> dict | None:
    """Find the config of a hook, which may be changed in place.

    Args:
        cfg (Config): The config of a run.
        kind (str): Name of the hook's class.

    Returns:
        dict, optional: The hook's config, or None if there is none.
    """
    return next((hook for hook in hook_places(cfg).values() if type_name(hook) == kind), None)


def hook_places(cfg: Config) -> dict[str, dict]:
    """The configs of all hooks, by dotted key, without those set to None."""
    named, listed = cfg.get('default_hooks') or {}, cfg.get('custom_hooks') or []
    hooks = {f'default_hooks.{name}': hook for name, hook in named.items()}
    hooks |= {f'custom_hooks.{index}': hook for index, hook in enumerate(listed)}
    return {key: hook for key, hook in hooks.items() if hook is not None}


def name_hooks(cfg: Config) -> None:
    """Move this plugin's hooks from ``custom_hooks``, where configs for its
    first version have them, to their names in ``default_hooks``.

    Raises:
        UserError: If ``default_hooks`` already has one of these hooks.
    """
    defaults, custom = cfg.get('default_hooks') or {}, cfg.get('custom_hooks') or []
    named = {}
    for index, hook in enumerate(custom):
        name = HOOK_NAMES.get(type_name(hook))
        if name is None:
            continue
        if defaults.get(name) is not None:
            raise UserError(
                f'custom_hooks.{index} is a second {type_name(hook)}: change default_hooks.{name} '
                'instead, or set it to None to remove it'
            )
        named[name] = hook
    if named:
        cfg.custom_hooks = [hook for hook in custom if type_name(hook) not in HOOK_NAMES]
        cfg.default_hooks = dict(defaults, **named)
        warn(
            f'{", ".join(named)} moved from custom_hooks to default_hooks, where the config should '
            'define them under these names'
        )


def as_list(schedulers: list[dict] | dict | None) -> list[dict]:
    """``param_scheduler``, which may be one scheduler or None, as a list."""
    return [schedulers] if isinstance(schedulers, dict) else schedulers or []


def move_compile(cfg: Config) -> None:
    """Move a top-level ``compile`` into the RIDEClassifier.

    MMEngine would compile the whole ``train_step``, whose data samples and
    optimizer break the graph; the classifier compiles only its tensor part.
    """
    if is_ride(cfg) and 'compile' in cfg:
        cfg.model.compile = cfg.pop('compile')


def is_ride(cfg: Config) -> bool:
    """Whether the model of a config is a RIDEClassifier."""
    return type_name(cfg.get('model')) == 'RIDEClassifier'


def find_metric(evaluator: Any, name: str) -> dict:
    """Config of the first metric of a type in an evaluator; {} if there is none."""
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    return next((metric for metric in metrics if type_name(metric) == name), {})


def innermost_dataset(loader: dict | None) -> dict:
    """Config of a data loader's dataset, without its wrappers."""
    dataset = (loader or {}).get('dataset', {})
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def follow_training_set(cfg: Config) -> None:
    """Copy the imbalance of the training set to the validation and test sets.

    Metrics group the classes by their training images. So one option, such as
    ``train_dataloader.dataset.imb_factor``, changes the imbalance everywhere.
    """
    train = innermost_dataset(cfg.get('train_dataloader'))
    for name in ('val_dataloader', 'test_dataloader'):
        dataset = innermost_dataset(cfg.get(name))
        if type_name(dataset) == type_name(train):
            for key in _PROFILE:
                if key in train:
                    dataset.setdefault(key, train[key])
