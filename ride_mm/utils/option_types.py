"""Check the options of a config against the signature of the class that gets them.

The signature says which options a class takes and of which types. Type checkers
such as typeguard or pydantic would refuse what configs may contain: a list for
a tuple, a dict for an object, and several numbers where another package
annotates only one. The ranges of numbers are in a table by the options' names.
"""

import ast
import collections.abc
import inspect
import math
import re
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

# Types in a message, of one value and of the items of a list.
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
_LISTS = (
    list,
    tuple,
    set,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
# Packages with exact annotations. mmpretrain annotates one number where it
# takes several, for example.
_EXACT = ('ride_mm', 'mmengine', 'mmcv', 'torch')
# A message lists the options of a class that has no more than these.
_MAX_SHOWN = 12
# Similarity of names that differ in one or two letters.
_TYPO_RATIO = 0.8


class Range(NamedTuple):
    """Interval of numbers.

    Args:
        low (float): The lower end. Defaults to minus infinity.
        high (float): The upper end. Defaults to infinity.
        above (bool): Whether ``low`` itself is excluded. Defaults to False.
        below (bool): Whether ``high`` itself is excluded. Defaults to False.
        whole (bool): Whether only whole numbers are in it. Defaults to False.
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


def _by_name(names: dict[Range, str]) -> dict[str, Range]:
    return {name: allowed for allowed in names for name in names[allowed].split()}


_COUNT = Range(1, whole=True)
_FROM_0 = Range(0, whole=True)
_SEED = Range(0, 2**32 - 1, whole=True)
_POSITIVE = Range(0, above=True)
_NOT_NEGATIVE = Range(0)
_SHARE = Range(0, 1)
_SHARE_ABOVE_0 = Range(0, 1, above=True)
_SHARE_BELOW_1 = Range(0, 1, below=True)

# Ranges of options by name, in the classes of all packages.
_RANGES = _by_name(
    {
        _COUNT: 'accumulative_counts base_batch_size batch_size channels crop_size depth end '
        'in_channels max_epochs max_iters num_classes num_policies num_stages prefetch_factor '
        'step_size T_max times topk val_interval',
        Range(2, whole=True): 'num_splits',
        _FROM_0: 'begin begin_epoch begin_iter milestones num_workers val_begin',
        # -1 means never, or all
        Range(-1, whole=True): 'interval max_keep_ckpts',
        _SEED: 'seed',
        _POSITIVE: 'clip_value max_norm scale',
        _NOT_NEGATIVE: 'alpha bias_decay_mult bias_lr_mult brightness contrast dcn_offset_lr_mult '
        'dwconv_decay_mult eps eta_min flat_decay_mult gamma loss_weight lr magnitude_level '
        'magnitude_std norm_decay_mult saturation timeout total_level weight_decay',
        _SHARE: 'drop_rate end_factor erase_prob label_smooth_val label_smoothing max_area_ratio '
        'min_area_ratio momentum oversample_thr prob',
        _SHARE_ABOVE_0: 'start_factor',
        _SHARE_BELOW_1: 'betas drop_path_rate',
    }
)
# Those of this plugin's classes, which use a name for one thing, and of
# torchvision's transforms, which have no annotations.
_OWN = ('ride_mm', 'torchvision')
_OWN_RANGES = _by_name(
    {
        _COUNT: 'epoch_size hidden_channels max_count num_bins num_experts out_channels size '
        'window_size',
        _FROM_0: 'class_counts num_stages padding stages',
        _SEED: 'subset_seed',
        _POSITIVE: 'alpha eta kappa pos_weight temperature',
        _NOT_NEGATIVE: 'degrees indices max_margin thresholds weight',
        _SHARE: 'threshold',
        _SHARE_ABOVE_0: 'imb_factor share',
        _SHARE_BELOW_1: 'beta',
        Range(0, 1, above=True, below=True): 'fraction',
    }
)
# Options with a few valid strings.
_CHOICES = dict(
    launcher=('none', 'pytorch', 'slurm', 'mpi'),
    log_level=('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET'),
)


class Parameters(NamedTuple):
    """Options that can be given to a class or function by name.

    Args:
        annotations (dict): Annotation of each parameter.
        defaults (dict): Default of each parameter that has one.
        loose (set): Parameters whose annotation may be inexact.
        is_open (bool): Whether it takes other names too.
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
    """Check options against the signature of the class or function that gets them.

    Args:
        key (str): Key of the options in the config.
        target (Callable): The class or function. Parameters without an
            annotation may have any value.
        options (dict): The options, without ``type``.
        also (dict, optional): Annotations of further options, which are
            removed before the call. Defaults to None.
        whole (bool): Whether the target gets nothing else, so that options
            without a default are required. Defaults to False.
        closed (bool): Whether nothing else reads the options. If not, an
            unknown name is refused only if it is similar to one of the
            target's. Defaults to True.

    Raises:
        UserError: If an option is unknown or missing, or its value has
            another type or is out of range.
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
    _check_type(place, value, annotation, might_fit if option in parameters.loose else fits)
    if value not in _CHOICES.get(option, (value,)):
        raise UserError(f'{place}={show(value)} must be one of {", ".join(_CHOICES[option])}')
    numbers = list(_numbers(value))
    if allowed is not None and not all(number in allowed for number in numbers):
        of_list = '' if isinstance(value, (int, float)) else ', each number'
        raise UserError(f'{place}={show(value)}{of_list} must be {allowed}')
    if option == 'class_counts' and numbers and not any(numbers):
        raise UserError(f'{place}={show(value)}: at least one class must have images')


def _check_type(place: str, value: Any, annotation: Any, fit: Callable[[Any, Any], bool]) -> None:
    if not fit(value, annotation):
        raise UserError(f'{place}={show(value)} must be {describe(annotation)}')


def check_finite(place: str, value: Any) -> None:
    """Check that a number is finite.

    Args:
        place (str): Key of the value in the config.
        value (Any): The value.

    Raises:
        UserError: If it is infinite or NaN.
    """
    # an infinite `norm_type` is the maximum norm
    if isinstance(value, float) and not math.isfinite(value) and not place.endswith('norm_type'):
        raise UserError(f'{place}={value} must be finite')


def _numbers(value: Any) -> Iterator[float]:
    """Numbers in a value and its nested lists."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _numbers(part)


def show(value: Any) -> str:
    """Show a value in a message, shortened to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


# ------------------------------------------------------------------- types


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of a config has the annotated type.

    A list may stand for any sequence, and a dict for the object that is built
    from it. Annotations without a type that a config can contain fit
    everything.

    Args:
        value (Any): The value.
        annotation (Any): The annotation.

    Returns:
        bool: Whether it fits.

    Examples:
        >>> fits([1, 2], tuple[int, ...]), fits(1.5, int | None)
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
        # an object is built from a dict
        return isinstance(value, (annotation, dict)) or not _is_plain(value)
    return True


def might_fit(value: Any, annotation: Any) -> bool:
    """Whether a value may have a type whose annotation is inexact.

    Such an annotation only tells strings, numbers and dicts apart: a string is
    refused for a number, list or dict, and a number for a string or dict.

    Args:
        value (Any): The value.
        annotation (Any): The annotation.

    Returns:
        bool: Whether it may fit.
    """
    # a config has a dict in the place of a callable
    kinds = set(_leaves(annotation)) - {collections.abc.Callable}
    if isinstance(value, (list, tuple)) and kinds.isdisjoint(_LISTS):
        return all(might_fit(part, annotation) for part in value)
    if not kinds <= {str, *_NUMBERS, *_LISTS, *_DICTS, type(None)}:
        return True
    if isinstance(value, str):
        return str in kinds
    if isinstance(value, (int, float)):
        if kinds <= {bool, type(None)}:
            return value in (0, 1)
        return not kinds.isdisjoint((*_NUMBERS, *_LISTS))
    return True


def _leaves(annotation: Any) -> Iterator[Any]:
    """Types in a union, and of the items of its lists."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType) or origin in _LISTS:
        for arg in args or (origin,):
            yield from _leaves(arg)
    elif annotation is not Ellipsis:
        yield origin or annotation


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, dict))


def describe(annotation: Any) -> str:
    """Describe an annotation in a message."""
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
    """Find the options that a class or function takes by name.

    If a class passes its ``**kwargs`` to its base class, these include the
    base's parameters; if it does anything else with them, it takes any name.

    Args:
        target (Callable): The class or function.

    Returns:
        Parameters: The options.
    """
    found = Parameters({}, {}, set(), is_open=False)
    hidden, positions = set(), 0
    for function in _functions(target):
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return found._replace(is_open=True)
        hints = _hints(function)
        is_exact = function.__module__.split('.')[0] in _EXACT
        named = [
            parameter
            for parameter in parameters
            if parameter.name != 'self'
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        # the subclass passes these itself
        hidden |= {parameter.name for parameter in named[:positions]}
        for parameter in named:
            name = parameter.name
            if name in hidden or name in found.annotations:
                continue
            found.annotations[name] = hints.get(name, _type_of_default(parameter))
            if name not in hints or not is_exact:
                found.loose.add(name)
            if parameter.default is not parameter.empty:
                found.defaults[name] = parameter.default
        kwargs = [
            parameter.name for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD
        ]
        if not kwargs:
            return found
        passed = _passed_to_base(function, kwargs[0])
        if passed is None:
            return found._replace(is_open=True)
        keywords, positions = passed
        hidden |= keywords
    return found._replace(is_open=not inspect.isclass(target))


def _functions(target: Callable) -> Iterator[Callable]:
    """A function itself, or the constructors of a class and of its bases."""
    if not inspect.isclass(target):
        yield target
        return
    for kind in target.__mro__[:-1]:
        if '__init__' in vars(kind):
            yield vars(kind)['__init__']


def _hints(function: Callable) -> dict:
    """Annotations, except those with names that do not exist at run time."""
    hints = {}
    for name, hint in getattr(function, '__annotations__', {}).items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, inspect.unwrap(function).__globals__)
            except Exception:
                continue
        if not isinstance(hint, TypeVar):
            hints[name] = hint
    return hints


def _type_of_default(parameter: inspect.Parameter) -> Any:
    """Probable type of a parameter whose default is a number or a list."""
    kind = type(parameter.default)
    return kind if kind in (*_NUMBERS, list, tuple) else Any


def _passed_to_base(function: Callable, kwargs: str) -> tuple[set, int] | None:
    """Find what a constructor passes to that of its base besides its ``**kwargs``.

    Returns:
        tuple[set, int]: Keywords and the number of positional arguments; None
        if the constructor does anything else with ``**kwargs``.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    nodes = list(ast.walk(tree))
    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == kwargs]
    calls = [
        node
        for node in nodes
        if isinstance(node, ast.Call)
        and any(keyword.arg is None and keyword.value in uses for keyword in node.keywords)
    ]
    if not len(uses) == len(calls) == 1:
        return None
    (call,) = calls
    if not re.fullmatch(r'super\(.*\)\.__init__', ast.unparse(call.func)):
        return None
    # a config provides nothing for `*args`
    positional = sum(not isinstance(arg, ast.Starred) for arg in call.args)
    return {keyword.arg for keyword in call.keywords if keyword.arg}, positional
