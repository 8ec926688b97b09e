"""Checks a config before anything is built of it.

Each ``type`` has to be the name of a registered class, and the options beside
it have to fit the class's signature, see :mod:`ride_mm.utils.option_types`.
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
    """What mmengine and this plugin's tools read at the top level of a
    config, beside what mmengine's runner takes."""


_RUNNER = parameters_of(Runner).annotations.keys()
TOP_LEVEL = _RUNNER | parameters_of(_beside_runner).annotations.keys()

# Registry of what stands under a key, itself or in a list.
_REGISTRIES = dict(
    model='MODELS',
    tta_model='MODELS',
    data_preprocessor='MODELS',
    backbone='MODELS',
    neck='MODELS',
    shared='MODELS',
    expert='MODELS',
    head='MODELS',
    classifier='MODELS',
    diversity='MODELS',
    router='MODELS',
    loss='MODELS',
    norm_cfg='MODELS',
    act_cfg='MODELS',
    conv_cfg='MODELS',
    tokenizer='TOKENIZER',
    init_cfg='WEIGHT_INITIALIZERS',
    augments='BATCH_AUGMENTS',
    dataset='DATASETS',
    datasets='DATASETS',
    pipeline='TRANSFORMS',
    train_pipeline='TRANSFORMS',
    tta_pipeline='TRANSFORMS',
    transforms='TRANSFORMS',
    policies='TRANSFORMS',
    sampler='DATA_SAMPLERS',
    batch_sampler='DATA_SAMPLERS',
    collate_fn='FUNCTIONS',
    worker_init_fn='FUNCTIONS',
    optim_wrapper='OPTIM_WRAPPERS',
    optimizer='OPTIMIZERS',
    constructor='OPTIM_WRAPPER_CONSTRUCTORS',
    param_scheduler='PARAM_SCHEDULERS',
    default_hooks='HOOKS',
    custom_hooks='HOOKS',
    ema_type='MODELS',
    val_evaluator='METRICS',
    test_evaluator='METRICS',
    metrics='METRICS',
    visualizer='VISUALIZERS',
    vis_backends='VISBACKENDS',
    log_processor='LOG_PROCESSORS',
    model_wrapper_cfg='MODEL_WRAPPERS',
    runner_type='RUNNERS',
    train_cfg='LOOPS',
    val_cfg='LOOPS',
    test_cfg='LOOPS',
)

# Keys of parts that name a class by itself.
_NAMES = ('constructor', 'ema_type', 'runner_type')
# What is no part: anything may stand in it. The `type` of LoRAModel's targets
# is a regular expression.
_DATA = ('metainfo', 'backend_args', 'file_client_args', 'custom_imports', 'targets')
# Parts that are of this class if they name none.
_DEFAULT_TYPES = dict(
    log_processor='LogProcessor',
    model_wrapper_cfg='MMDistributedDataParallel',
    optim_wrapper='OptimWrapper',
    visualizer='Visualizer',
)
# The same of a classifier's parts.
_OF_CLASSIFIER = dict(data_preprocessor=ClsDataPreprocessor, train_cfg=RandomBatchAugment)
# What mmengine wants all of, or none.
_TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
# Parts that have to name their class.
_TYPED = (
    'custom_hooks',
    'optimizer',
    'param_scheduler',
    'pipeline',
    'test_evaluator',
    'val_evaluator',
)
# Registries of what is built from its options alone.
_WHOLE = ('HOOKS', 'METRICS', 'TRANSFORMS')
# Options that mmengine takes out before it builds the rest.
_TAKEN_OUT = dict(
    HOOKS=dict(priority=int | str),
    OPTIM_WRAPPERS=dict(constructor=str, optimizer=dict, paramwise_cfg=dict | None),
    PARAM_SCHEDULERS=dict(convert_to_iter_based=bool),
    VISUALIZERS=dict(name=str),
    WEIGHT_INITIALIZERS=dict(layer=str | list[str], name=str, override=dict | list[dict]),
    norm_cfg=dict(requires_grad=bool),
    policies=dict(magnitude_key=str, magnitude_range=Sequence),
)


def _auto_scale_lr(base_batch_size: int, enable: bool = False) -> None:
    """What mmengine reads of ``auto_scale_lr``."""


def _env_cfg(
    cudnn_benchmark: bool, mp_cfg: dict, dist_cfg: dict, resource_limit: int = 4096
) -> None:
    """What mmengine reads of ``env_cfg``."""


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
    """What constructors of mmengine and mmpretrain read of it."""


def _randomness(
    seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False
) -> None:
    """What mmengine reads of ``randomness``."""


def check_config(cfg: Config) -> None:
    """Check the parts of a config that a runner reads.

    Args:
        cfg (Config): The config.

    Raises:
        UserError: If a part is of a class that is not registered, or an
            option is none, of a wrong type, out of range or not finite.
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
        cfg (Config): The config that a runner is to be built of.

    Raises:
        UserError: If it has one part, and lacks another one.
    """
    for keys in _TOGETHER:
        missing = [key for key in keys if cfg.get(key) is None]
        if missing and len(missing) < len(keys):
            given = next(key for key in keys if key not in missing)
            raise UserError(
                f'the config has {given} but no '
                f'{" and no ".join(missing)}: it needs all of '
                f'{", ".join(keys)}, or none'
            )


def _named_hooks(hooks: dict) -> dict:
    """The hooks of ``default_hooks``; None takes one out."""
    found = {name: hook for name, hook in hooks.items() if hook is not None}
    for name, hook in found.items():
        if isinstance(hook, dict) and 'type' not in hook:
            raise UserError(
                f'default_hooks.{name} is not a hook: it has no '
                f'type.{nearest(name, hooks.keys() - {name})}'
            )
        if isinstance(hook, (bool, int, float, str, list, tuple)):
            raise UserError(f'default_hooks.{name}={show(hook)} must be a dict or None')
    return found


def _check(place: str, key: str, part: Any, registry: str, scope: str) -> None:
    """Check a part, and those in it.

    Args:
        place (str): Its dotted key.
        key (str): The last of these that is no index.
        part (Any): The part.
        registry (str): That of the part around it.
        scope (str): Of the registry.
    """
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
        if target is None and key in _TYPED:
            raise UserError(f"{place} does not name a class, as in {place}=dict(type='...')")
        if target is not None:
            options = {
                name: value
                for name, value in part.items()
                if name != 'type' and not name.startswith('_')
            }
            check_options(
                place,
                target,
                options,
                taken_out,
                whole='type' in part and registry in _WHOLE,
                closed=key in _REGISTRIES or 'type' not in part,
            )
        is_classifier = inspect.isclass(target) and issubclass(target, ImageClassifier)
        for name, item in part.items():
            if is_classifier and name in _OF_CLASSIFIER and item:
                item = dict(dict(type=_OF_CLASSIFIER[name]), **item)
            is_hook = place == 'default_hooks'
            _check(f'{place}.{name}', 'default_hooks' if is_hook else name, item, registry, scope)
    elif isinstance(part, str) and key in _NAMES:
        _resolve(place, part, registry, scope)
    elif key == 'split' and part == 'test' and place.startswith('train_'):
        raise UserError(f"{place}='test': do not train a model on its test set")
    else:
        check_finite(place, part)


def _target(
    place: str, key: str, part: dict, registry: str, scope: str
) -> tuple[Callable | None, dict[str, Any]]:
    """What the options of a part are given to, and which are not.

    Returns:
        tuple[Callable | None, dict]: The class or function, None if the part
        is not known, and annotations of options that it does not see.
    """
    if key == 'clip_grad':
        clip = dict(norm=clip_grad_norm_, value=clip_grad_value_)
        kind = part.get('type', 'norm')
        if kind not in clip:
            raise UserError(f'{place}.type={show(kind)} must be one of {", ".join(clip)}')
        return clip[kind], {}
    if registry == 'EVALUATOR':
        kind = part.get('type', 'Evaluator')
    else:
        kind = part.get('type', _DEFAULT_TYPES.get(key))
    if kind is not None:
        if isinstance(kind, str):
            kind = _resolve(f'{place}.type', kind, registry, scope, key in _REGISTRIES)
        elif not callable(kind):
            raise UserError(f'{place}.type={show(kind)} must be the name of a class')
        # mmpretrain wraps torchvision's transforms
        kind = getattr(kind, 'keywords', {}).get('transform', kind)
        return kind, _TAKEN_OUT.get(key, _TAKEN_OUT.get(registry))
    if '.' not in place and key == 'train_cfg':
        by_epoch = part.get('by_epoch', True)
        loop = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
        return loop, dict(by_epoch=bool)
    untyped = dict(
        auto_scale_lr=_auto_scale_lr,
        batch_augments=RandomBatchAugment,
        env_cfg=_env_cfg,
        paramwise_cfg=_paramwise_cfg,
        randomness=_randomness,
        test_dataloader=DataLoader,
        train_dataloader=DataLoader,
        val_dataloader=DataLoader,
    )
    if '.' not in place:
        untyped.update(val_cfg=ValLoop, test_cfg=TestLoop)
    return untyped.get(key), dict(num_batch_per_epoch=int)


def _resolve(
    place: str, name: str, registry: str, scope: str, certain: bool = True
) -> Callable | None:
    """Find a registered class or function.

    Args:
        place (str): Where the name stands in the config.
        name (str): The name.
        registry (str): The registry.
        scope (str): Its scope.
        certain (bool): Whether the name has to be there. Defaults to True;
            otherwise it is refused only if it is nearly one that is.

    Returns:
        Callable | None: The class or function.

    Raises:
        UserError: If there is none of this name.
    """
    found = level = _registry(registry, scope)
    # a scope leads to the registry's parents as well
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
