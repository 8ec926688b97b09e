"""Options of a config against the signature of what they are for.

A class says in its signature which options it takes and of which type. What a
number may be is said once, in a table by the option's name.
"""

import ast
import collections.abc
import inspect
import math
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from numbers import Number
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from .errors import UserError, nearest

_WORDS = {
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    str: 'a string',
    dict: 'a dict',
    type(None): 'None',
}
_PLURALS = {int: 'whole numbers', float: 'numbers', str: 'strings', dict: 'dicts'}
_NUMBERS = (bool, int, float, Number)
_MAX_SHOWN = 12
# As alike are names that differ in a letter or two.
_TYPO_RATIO = 0.8
# Whose annotations are exact. mmpretrain annotates one number where it takes
# several, and the like; others may too.
_EXACT = ('ride_mm', 'mmengine', 'mmcv', 'torch')
_LISTS = (
    list,
    tuple,
    set,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class Range(NamedTuple):
    """What a number may be.

    Args:
        low (float): The least value. Defaults to minus infinity.
        high (float): The largest value. Defaults to infinity.
        above (bool): Whether ``low`` itself is excluded. Defaults to False.
        below (bool): Whether ``high`` itself is excluded. Defaults to False.
        whole (bool): Whether it has to be a whole number. Defaults to False.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        return (
            self.low <= value <= self.high
            and not (self.above and value == self.low)
            and not (self.below and value == self.high)
            and not (self.whole and not isinstance(value, int))
        )

    def __str__(self) -> str:
        if self.high - self.low < math.inf and not (self.above or self.below):
            return f'{"a whole number " * self.whole}between {self.low} and {self.high}'
        parts = []
        if self.low > -math.inf:
            parts.append(f'{"above" if self.above else "at least"} {self.low}')
        if self.high < math.inf:
            parts.append(f'{"below" if self.below else "at most"} {self.high}')
        return ' of '.join(['a whole number'] * self.whole + [' and '.join(parts)])


_COUNT = Range(1, whole=True)
_FROM_0 = Range(0, whole=True)
_NOT_NEGATIVE = Range(0)
_POSITIVE = Range(0, above=True)
_SHARE = Range(0, 1)
_DECAY = Range(0, 1, below=True)
# -1 means never, or all of them
_OR_NEVER = Range(-1, whole=True)
_SEED = Range(0, 2**32 - 1, whole=True)

# In every class, whoever wrote it.
_RANGES = dict(
    accumulative_counts=_COUNT,
    alpha=_NOT_NEGATIVE,
    base_batch_size=_COUNT,
    batch_size=_COUNT,
    begin=_FROM_0,
    begin_epoch=_FROM_0,
    begin_iter=_FROM_0,
    betas=_DECAY,
    bias_decay_mult=_NOT_NEGATIVE,
    bias_lr_mult=_NOT_NEGATIVE,
    brightness=_NOT_NEGATIVE,
    channels=_COUNT,
    clip_value=_POSITIVE,
    contrast=_NOT_NEGATIVE,
    crop_size=_COUNT,
    dcn_offset_lr_mult=_NOT_NEGATIVE,
    depth=_COUNT,
    drop_path_rate=_DECAY,
    drop_rate=_SHARE,
    dwconv_decay_mult=_NOT_NEGATIVE,
    end=_COUNT,
    end_factor=_SHARE,
    eps=_NOT_NEGATIVE,
    erase_prob=_SHARE,
    eta_min=_NOT_NEGATIVE,
    flat_decay_mult=_NOT_NEGATIVE,
    gamma=_NOT_NEGATIVE,
    in_channels=_COUNT,
    interval=_OR_NEVER,
    label_smooth_val=_SHARE,
    label_smoothing=_SHARE,
    loss_weight=_NOT_NEGATIVE,
    lr=_NOT_NEGATIVE,
    magnitude_level=_NOT_NEGATIVE,
    magnitude_std=_NOT_NEGATIVE,
    max_area_ratio=_SHARE,
    max_epochs=_COUNT,
    max_iters=_COUNT,
    max_keep_ckpts=_OR_NEVER,
    max_norm=_POSITIVE,
    milestones=_FROM_0,
    min_area_ratio=_SHARE,
    momentum=_SHARE,
    norm_decay_mult=_NOT_NEGATIVE,
    num_classes=_COUNT,
    num_policies=_COUNT,
    num_splits=Range(2, whole=True),
    num_stages=_COUNT,
    num_workers=_FROM_0,
    oversample_thr=_SHARE,
    prefetch_factor=_COUNT,
    prob=_SHARE,
    saturation=_NOT_NEGATIVE,
    scale=_POSITIVE,
    seed=_SEED,
    start_factor=Range(0, 1, above=True),
    step_size=_COUNT,
    T_max=_COUNT,
    timeout=_NOT_NEGATIVE,
    times=_COUNT,
    topk=_COUNT,
    total_level=_NOT_NEGATIVE,
    val_begin=_FROM_0,
    val_interval=_COUNT,
    weight_decay=_NOT_NEGATIVE,
)

# Strings that are one of a few, wherever they stand.
_CHOICES = dict(
    launcher=('none', 'pytorch', 'slurm', 'mpi'),
    log_level=('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET'),
)

# In this plugin's classes, where the name means the same everywhere, and in
# transforms of torchvision, which annotates nothing.
_OWN = ('ride_mm', 'torchvision')
_OWN_RANGES = dict(
    alpha=_POSITIVE,
    beta=_DECAY,
    class_counts=_FROM_0,
    degrees=_NOT_NEGATIVE,
    epoch_size=_COUNT,
    eta=_POSITIVE,
    fraction=Range(0, 1, above=True, below=True),
    hidden_channels=_COUNT,
    imb_factor=Range(0, 1, above=True),
    indices=_NOT_NEGATIVE,
    kappa=_POSITIVE,
    max_count=_COUNT,
    max_margin=_NOT_NEGATIVE,
    num_bins=_COUNT,
    num_experts=_COUNT,
    out_channels=_COUNT,
    padding=_FROM_0,
    pos_weight=_POSITIVE,
    share=Range(0, 1, above=True),
    size=_COUNT,
    stages=_FROM_0,
    subset_seed=_SEED,
    temperature=_POSITIVE,
    threshold=_SHARE,
    thresholds=_NOT_NEGATIVE,
    weight=_NOT_NEGATIVE,
    window_size=_COUNT,
)


class Parameters(NamedTuple):
    """What can be given to a class or function by name.

    Args:
        annotations (dict): Annotation of each parameter.
        defaults (dict): Default of each parameter that has one.
        loose (set): Parameters whose annotations need not be exact.
        is_open (bool): Whether other names are taken too.
    """

    annotations: dict[str, Any]
    defaults: dict[str, Any]
    loose: set[str]
    is_open: bool


def check_options(
    key: str,
    target: Callable,
    options: dict,
    also: dict[str, Any] | None = None,
    whole: bool = False,
    closed: bool = True,
) -> None:
    """Check options against the signature of what they are given to.

    Args:
        key (str): Where the options stand in the config.
        target (Callable): The class or function. What it does not annotate
            may be anything.
        options (dict): The options, without ``type``.
        also (dict, optional): Annotations of options that are taken out of
            the dict before. Defaults to None.
        whole (bool): Whether nothing else is given to the target, so that no
            option may be missing that has no default. Defaults to False.
        closed (bool): Whether nobody else takes options out of the dict; if
            somebody may, only near misses of the target's own names are
            refused. Defaults to True.

    Raises:
        UserError: If there is no such option, its type is another one, its
            number is out of range or it is missing.
    """
    parameters = parameters_of(target)
    name = target.__name__ if inspect.isclass(target) else key.split('.')[-1]
    is_open = parameters.is_open or not closed
    also = also or {}
    for option, value in options.items():
        place = f'{key}.{option}' if key else option
        check_finite(place, value)
        if option in parameters.annotations:
            _check_value(place, option, value, target)
        elif option in also:
            _check_type(place, value, also[option], fits)
        else:
            hint = nearest(option, parameters.annotations, _TYPO_RATIO if is_open else 0.6)
            if is_open and not hint:
                continue
            if not hint and len(parameters.annotations) <= _MAX_SHOWN:
                hint = f' It takes {", ".join(parameters.annotations)}.'
            raise UserError(f'{place}: {name} has no option {option!r}.{hint}')
    missing = parameters.annotations.keys() - parameters.defaults.keys() - options.keys()
    if whole and missing:
        raise UserError(f'{key}: {name} needs {", ".join(sorted(missing))}')


def _check_value(place: str, option: str, value: Any, target: Callable) -> None:
    """Check the value of a parameter of a class or function."""
    parameters = parameters_of(target)
    if option in parameters.defaults and parameters.defaults[option] is value:
        return
    allowed = _RANGES.get(option)
    if getattr(target, '__module__', '').split('.')[0] in _OWN:
        allowed = _OWN_RANGES.get(option, allowed)
    annotation = parameters.annotations[option]
    if annotation is Any and allowed is not None:
        annotation = float | Sequence[float] | None
    fit = might_fit if option in parameters.loose else fits
    _check_type(place, value, annotation, fit)
    if value not in _CHOICES.get(option, (value,)):
        raise UserError(f'{place}={show(value)} must be one of {", ".join(_CHOICES[option])}')
    numbers = list(_numbers(value))
    if allowed is not None and not all(n in allowed for n in numbers):
        of_list = '' if isinstance(value, (int, float)) else ', each number'
        raise UserError(f'{place}={show(value)}{of_list} must be {allowed}')
    if option == 'class_counts' and numbers and not any(numbers):
        raise UserError(f'{place}={show(value)}: at least one class must have images')


def _check_type(place: str, value: Any, annotation: Any, fit: Callable[[Any, Any], bool]) -> None:
    if not fit(value, annotation):
        raise UserError(f'{place}={show(value)} must be {describe(annotation)}')


def check_finite(place: str, value: Any) -> None:
    """Check that a number is one.

    Raises:
        UserError: If it is infinite or NaN.
    """
    # the order of a norm, the largest entry, may be infinite
    if isinstance(value, float) and not math.isfinite(value) and not place.endswith('norm_type'):
        raise UserError(f'{place}={value} must be finite')


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _numbers(part)


def show(value: Any) -> str:
    """A value as a message shows it, not at length."""
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


# ------------------------------------------------------------------- types


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of a config is of an annotated type.

    A list may stand for any sequence and a dict for what is built from it;
    an annotation that says nothing of plain values allows all.

    Args:
        value (Any): The value.
        annotation (Any): The annotation.

    Returns:
        bool: Whether it fits.

    Examples:
        >>> fits([1, 2], Tuple[int, ...]), fits(1.5, Optional[int])
        (True, False)
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is bool:
        return isinstance(value, bool) or value in (0, 1)
    if annotation is str:
        return isinstance(value, str)
    kind = origin or annotation
    if kind in _LISTS:
        if not isinstance(value, (list, tuple, set)):
            return kind not in (list, tuple, set) and not _is_plain(value)
        if kind is tuple and args and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(map(fits, value, args))
        return all(fits(part, args[0]) for part in value) if args else True
    if kind in _DICTS:
        if not isinstance(value, dict):
            return False
        return all(fits(part, args[1]) for part in value.values()) if args else True
    if inspect.isclass(annotation):
        # a dict is what such an object is built from
        return isinstance(value, (annotation, dict)) or not _is_plain(value)
    return True


def might_fit(value: Any, annotation: Any) -> bool:
    """Whether a value may be of a type that is annotated by and large.

    Of annotations that are not exact, only this is taken: a string is no
    number, list or dict, and a number is neither a string nor a dict.

    Args:
        value (Any): The value.
        annotation (Any): The annotation.

    Returns:
        bool: Whether it may fit.
    """
    # of what is called, a config has the dict
    kinds = set(_leaves(annotation)) - {collections.abc.Callable}
    if isinstance(value, (list, tuple)) and kinds.isdisjoint(_LISTS):
        return all(might_fit(part, annotation) for part in value)
    if not kinds <= {str, *_NUMBERS, *_LISTS, *_DICTS, type(None)}:
        return True
    if isinstance(value, str):
        return str in kinds
    if isinstance(value, (int, float)):
        return (
            value in (0, 1)
            if kinds <= {bool, type(None)}
            else (not kinds.isdisjoint((*_NUMBERS, *_LISTS)))
        )
    return True


def _leaves(annotation: Any) -> Iterator[Any]:
    """Types of a union, and of the values in its lists."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType) or origin in _LISTS:
        for arg in args or (origin,):
            yield from _leaves(arg)
    elif annotation is not Ellipsis:
        yield origin or annotation


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, dict))


def describe(annotation: Any) -> str:
    """An annotation in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        # None last, as in "a number or None"
        args = tuple(sorted(args, key=lambda arg: arg is type(None)))
        plain = [arg for arg in args if _is_plain_type(arg)]
        return ' or '.join(dict.fromkeys(map(describe, plain or args)))
    if origin is Literal:
        return f'one of {", ".join(map(repr, args))}'
    if annotation in _WORDS:
        return _WORDS[annotation]
    if (origin or annotation) in _LISTS:
        return f'a list of {_PLURALS[args[0]]}' if (args and args[0] in _PLURALS) else 'a list'
    # an object is built from a dict
    return _WORDS[dict]


def _is_plain_type(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return kind in _WORDS or kind in _LISTS or kind in _DICTS


# -------------------------------------------------------------- signatures


@cache
def parameters_of(target: Callable) -> Parameters:
    """Find what a class or function takes by name.

    Where a class hands its ``**kwargs`` to its base class, the base's
    parameters are taken as well; where it does something else with them,
    any name is.

    Args:
        target (Callable): The class or function.

    Returns:
        Parameters: What it takes.
    """
    annotations: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    loose: set[str] = set()
    hidden, positions = set(), 0
    for function in _functions(target):
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return Parameters(annotations, defaults, loose, True)
        hints = _hints(function)
        named = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.name != 'self'
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        # What the subclass passes itself cannot be given as well.
        hidden |= {parameter.name for parameter in named[:positions]}
        for parameter in named:
            name = parameter.name
            if name in hidden or name in annotations:
                continue
            annotations[name] = hints.get(name, _of_default(parameter))
            module = function.__module__.split('.')[0]
            if name not in hints or module not in _EXACT:
                loose.add(name)
            if parameter.default is not parameter.empty:
                defaults[name] = parameter.default
        rest = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.kind is parameter.VAR_KEYWORD
        ]
        if not rest:
            return Parameters(annotations, defaults, loose, False)
        handed = _handed_on(function, rest[0])
        if handed is None:
            return Parameters(annotations, defaults, loose, True)
        keywords, positions = handed
        hidden |= keywords
    is_open = not inspect.isclass(target)
    return Parameters(annotations, defaults, loose, is_open)


def _functions(target: Callable) -> Iterator[Callable]:
    if not inspect.isclass(target):
        yield target
        return
    for kind in target.__mro__[:-1]:
        if '__init__' in vars(kind):
            yield vars(kind)['__init__']


def _hints(function: Callable) -> dict:
    """Annotations; not those that name what cannot be found at run time."""
    found = getattr(function, '__annotations__', {})
    hints = {}
    for name, hint in found.items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, inspect.unwrap(function).__globals__)
            except Exception:
                continue
        if not isinstance(hint, TypeVar):
            hints[name] = hint
    return hints


def _of_default(parameter: inspect.Parameter) -> Any:
    """What a number or a list as the default says of the type, by and
    large."""
    kind = type(parameter.default)
    return kind if kind in (*_NUMBERS, list, tuple) else Any


def _handed_on(function: Callable, kwargs: str) -> tuple[set, int] | None:
    """Find what a constructor passes to its base's beside its ``**kwargs``.

    Returns:
        tuple[set, int]: Keywords and the number of positional arguments;
        None if it does anything else with ``**kwargs``.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    uses = sum(isinstance(node, ast.Name) and node.id == kwargs for node in ast.walk(tree))
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and any(
            keyword.arg is None
            and isinstance(keyword.value, ast.Name)
            and keyword.value.id == kwargs
            for keyword in node.keywords
        )
    ]
    if len(calls) != uses or uses != 1:
        return None
    call = calls[0]
    if not ast.unparse(call.func).startswith('super(') or not ast.unparse(call.func).endswith(
        '.__init__'
    ):
        return None
    # of `*args` a config gives none
    positional = sum(not isinstance(arg, ast.Starred) for arg in call.args)
    return {k.arg for k in call.keywords if k.arg}, positional
