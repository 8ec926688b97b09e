"""Check a config before anything is built from it.

Each ``type`` has to be the name of a registered class, and the options beside
it have to fit the signature of the class, see
:mod:`ride_mm.utils.option_types`.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

import mmengine.registry as mmengine_registry
import mmpretrain.registry as mmpretrain_registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier
from mmpretrain.models.utils.batch_augments import RandomBatchAugment
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from ride_mm.utils.errors import UserError, nearest
from ride_mm.utils.option_types import check_finite, check_options, parameters_of, show


def _beside_runner(
    activation_checkpointing: str | list[str] | None,
    compile: bool | dict,
    custom_imports: dict | None,
    efficient_conv_bn_eval: str | list[str] | None,
    find_unused_parameters: bool,
    model_wrapper_cfg: dict | None,
    runner_type: str,
    sync_bn: str | None,
    tta_model: dict | None,
    tta_pipeline: list | None,
) -> None:
    """Top-level keys of a config that mmengine and this plugin's tools read,
    besides the arguments of mmengine's runner."""


_RUNNER = parameters_of(Runner).annotations.keys()
TOP_LEVEL = _RUNNER | parameters_of(_beside_runner).annotations.keys()

# Registry of a part, or of each item of a list of parts, by its key.
_REGISTRIES = {
    key: registry
    for registry, keys in dict(
        MODELS='model tta_model data_preprocessor backbone neck shared expert head classifier '
        'diversity router loss norm_cfg act_cfg conv_cfg ema_type',
        TOKENIZER='tokenizer',
        WEIGHT_INITIALIZERS='init_cfg',
        BATCH_AUGMENTS='augments',
        DATASETS='dataset datasets',
        TRANSFORMS='pipeline train_pipeline tta_pipeline transforms policies',
        DATA_SAMPLERS='sampler batch_sampler',
        FUNCTIONS='collate_fn worker_init_fn',
        OPTIM_WRAPPERS='optim_wrapper',
        OPTIMIZERS='optimizer',
        OPTIM_WRAPPER_CONSTRUCTORS='constructor',
        PARAM_SCHEDULERS='param_scheduler',
        HOOKS='default_hooks custom_hooks',
        METRICS='val_evaluator test_evaluator metrics',
        VISUALIZERS='visualizer',
        VISBACKENDS='vis_backends',
        LOG_PROCESSORS='log_processor',
        MODEL_WRAPPERS='model_wrapper_cfg',
        RUNNERS='runner_type',
        LOOPS='train_cfg val_cfg test_cfg',
    ).items()
    for key in keys.split()
}
# Keys whose value is the name of a class.
_NAMES = ('constructor', 'ema_type', 'runner_type')
# Keys whose value is not checked. In LoRAModel's targets, `type` is a regular
# expression.
_DATA = ('metainfo', 'backend_args', 'file_client_args', 'custom_imports', 'targets')
# Classes of parts without a type.
_DEFAULT_TYPES = dict(
    log_processor='LogProcessor',
    model_wrapper_cfg='MMDistributedDataParallel',
    optim_wrapper='OptimWrapper',
    visualizer='Visualizer',
)
# Classes of a classifier's parts without a type.
_OF_CLASSIFIER = dict(data_preprocessor=ClsDataPreprocessor, train_cfg=RandomBatchAugment)
# mmengine needs all of these, or none.
_TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
# Parts that need a type.
_TYPED = (
    'custom_hooks',
    'optimizer',
    'param_scheduler',
    'pipeline',
    'test_evaluator',
    'val_evaluator',
)
# Registries whose classes get no arguments but the options of the config.
_WHOLE = ('HOOKS', 'METRICS', 'TRANSFORMS')
# Options that mmengine removes before it builds a part.
_TAKEN_OUT: dict[str, dict[str, Any]] = dict(
    HOOKS=dict(priority=int | str),
    OPTIM_WRAPPERS=dict(constructor=str, optimizer=dict, paramwise_cfg=dict | None),
    PARAM_SCHEDULERS=dict(convert_to_iter_based=bool),
    VISUALIZERS=dict(name=str),
    WEIGHT_INITIALIZERS=dict(layer=str | list[str], name=str, override=dict | list[dict]),
    norm_cfg=dict(requires_grad=bool),
    policies=dict(magnitude_key=str, magnitude_range=Sequence),
)


def _auto_scale_lr(base_batch_size: int, enable: bool = False) -> None:
    """Options of ``auto_scale_lr`` in mmengine."""


def _env_cfg(
    cudnn_benchmark: bool, mp_cfg: dict, dist_cfg: dict, resource_limit: int = 4096
) -> None:
    """Options of ``env_cfg`` in mmengine."""


def _paramwise_cfg(
    custom_keys: dict[str, dict],
    bias_lr_mult: float | None,
    bias_decay_mult: float | None,
    norm_decay_mult: float | None,
    dwconv_decay_mult: float | None,
    flat_decay_mult: float | None,
    dcn_offset_lr_mult: float | None,
    bypass_duplicate: bool,
    layer_decay_rate: float,
) -> None:
    """Options of ``paramwise_cfg`` in mmengine and mmpretrain."""


def _randomness(
    seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False
) -> None:
    """Options of ``randomness`` in mmengine."""


# What takes the options of parts that never have a type.
_UNTYPED: dict[str, Callable] = dict(
    auto_scale_lr=_auto_scale_lr,
    batch_augments=RandomBatchAugment,
    env_cfg=_env_cfg,
    paramwise_cfg=_paramwise_cfg,
    randomness=_randomness,
    test_dataloader=DataLoader,
    train_dataloader=DataLoader,
    val_dataloader=DataLoader,
)


def check_config(cfg: Config) -> None:
    """Check the parts of a config that a runner reads.

    Args:
        cfg (Config): The config.

    Raises:
        UserError: If the class of a part is not registered, or an option is
            unknown, of a wrong type, out of range or not finite.
    """
    scope = cfg.get('default_scope', 'mmpretrain')
    parts = {key: cfg[key] for key in TOP_LEVEL if key in cfg}
    if isinstance(parts.get('default_hooks'), dict):
        parts['default_hooks'] = _named_hooks(parts['default_hooks'])
    for target, keys in ((Runner, _RUNNER), (_beside_runner, TOP_LEVEL - _RUNNER)):
        check_options('', target, {key: parts[key] for key in keys & parts.keys()})
    for key, part in parts.items():
        _check(key, key, part, 'MODELS', scope)


def check_together(cfg: Config) -> None:
    """Check that a config has all that a training or an evaluation needs.

    Args:
        cfg (Config): The config from which a runner is to be built.

    Raises:
        UserError: If the config has only some of the parts.
    """
    for keys in _TOGETHER:
        missing = [key for key in keys if cfg.get(key) is None]
        if missing and len(missing) < len(keys):
            given = next(key for key in keys if key not in missing)
            raise UserError(
                f'the config has {given} but no {" and no ".join(missing)}: it needs all of '
                f'{", ".join(keys)}, or none'
            )


def _named_hooks(hooks: dict) -> dict:
    """The hooks of ``default_hooks`` that are not removed by None."""
    found = {name: hook for name, hook in hooks.items() if hook is not None}
    for name, hook in found.items():
        if isinstance(hook, dict) and 'type' not in hook:
            hint = nearest(name, hooks.keys() - {name})
            raise UserError(f'default_hooks.{name} is not a hook: it has no type.{hint}')
        if isinstance(hook, (bool, int, float, str, list, tuple)):
            raise UserError(f'default_hooks.{name}={show(hook)} must be a dict or None')
    return found


def _check(place: str, key: str, part: Any, registry: str, scope: str) -> None:
    """Check a part, at the dotted key ``place`` whose last component that is not
    an index is ``key``, and everything inside it. ``registry`` and ``scope`` are
    those of the enclosing part."""
    if key in _DATA:
        return
    if '.' not in place or key not in ('train_cfg', 'val_cfg', 'test_cfg'):
        registry = _REGISTRIES.get(key, registry)
    if isinstance(part, (list, tuple)):
        for i, item in enumerate(part):
            if key in _TYPED and isinstance(item, (bool, int, float, str)):
                raise UserError(f'{place}.{i}={show(item)} must be a dict')
            _check(f'{place}.{i}', key, item, registry, scope)
    elif isinstance(part, dict):
        if registry == 'METRICS' and 'metrics' in part:
            registry = 'EVALUATOR'
        scope = part.get('_scope_', scope)
        target, taken_out = _target(place, key, part, registry, scope)
        if target is not None:
            check_options(
                place,
                target,
                {name: part[name] for name in part if name != 'type' and not name.startswith('_')},
                taken_out,
                whole='type' in part and registry in _WHOLE,
                closed=key in _REGISTRIES or 'type' not in part,
            )
        elif key in _TYPED:
            raise UserError(f"{place} does not name a class, as in {place}=dict(type='...')")
        is_classifier = inspect.isclass(target) and issubclass(target, ImageClassifier)
        for name, item in part.items():
            if is_classifier and name in _OF_CLASSIFIER and item:
                item = dict(dict(type=_OF_CLASSIFIER[name]), **item)
            inner = 'default_hooks' if place == 'default_hooks' else name
            _check(f'{place}.{name}', inner, item, registry, scope)
    elif isinstance(part, str) and key in _NAMES:
        _resolve(place, part, registry, scope)
    elif key == 'split' and part == 'test' and place.startswith('train_'):
        raise UserError(f"{place}='test': do not train a model on its test set")
    else:
        check_finite(place, part)


def _target(
    place: str, key: str, part: dict, registry: str, scope: str
) -> tuple[Callable | None, dict[str, Any] | None]:
    """The class or function that takes the options of a part, None if unknown,
    and annotations of options that are removed before."""
    if key == 'clip_grad':
        clip: dict[str, Callable] = dict(norm=clip_grad_norm_, value=clip_grad_value_)
        kind = part.get('type', 'norm')
        if kind not in clip:
            raise UserError(f'{place}.type={show(kind)} must be one of {", ".join(clip)}')
        return clip[kind], None
    default = 'Evaluator' if registry == 'EVALUATOR' else _DEFAULT_TYPES.get(key)
    kind = part.get('type', default)
    if kind is not None:
        if isinstance(kind, str):
            kind = _resolve(f'{place}.type', kind, registry, scope, key in _REGISTRIES)
        elif not callable(kind):
            raise UserError(f'{place}.type={show(kind)} must be the name of a class')
        # mmpretrain wraps torchvision's transforms
        kind = getattr(kind, 'keywords', {}).get('transform', kind)
        return kind, _TAKEN_OUT.get(key, _TAKEN_OUT.get(registry))
    if place == 'train_cfg':
        by_epoch = part.get('by_epoch', True)
        return EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop, dict(by_epoch=bool)
    loops = dict(val_cfg=ValLoop, test_cfg=TestLoop)
    return loops.get(place, _UNTYPED.get(key)), dict(num_batch_per_epoch=int)


def _resolve(
    place: str, name: str, registry: str, scope: str, certain: bool = True
) -> Callable | None:
    """Find a registered class or function. Unless ``certain``, a name that is
    not registered is rejected only if it is similar to one that is."""
    found = level = _registry(registry, scope)
    # with its scope, a name is also looked up in the registry's parents
    own, _, inner = name.partition('.')
    scoped = own == found.scope and inner and '.' not in inner
    kind = found.get(inner if scoped else name)
    if kind is None:
        names = []
        while level is not None:
            names += level.module_dict
            level = level.parent
        hint = nearest(name, names, cutoff=0.6 if certain else 0.85)
        if certain or hint:
            raise UserError(f'{place}={name!r}: there is no {found.name} of this name.{hint}')
    return kind


@cache
def _registry(name: str, scope: str) -> Registry:
    root = getattr(mmengine_registry, name, None) or getattr(mmpretrain_registry, name)
    with suppress(ImportError):
        import_module(f'{scope}.registry')
    return root.children.get(scope, root)
