from numbers import Number
from typing import Any, Dict, List, Literal, Optional, Sequence, Tuple, Union

import pytest
import torch

from ride_mm.utils.errors import UserError
from ride_mm.utils.option_types import (
    Range,
    check_options,
    describe,
    fits,
    might_fit,
    parameters_of,
)


@pytest.mark.parametrize(
    'annotation, right, wrong',
    [
        (int, [0, -3], [True, 1.0, '1', None, [1]]),
        (float, [0, 1.5], [True, 'a', None, [1.0]]),
        (bool, [True, False, 0, 1], ['yes', 2, None]),
        (str, ['a'], [1, None, ['a']]),
        (dict, [{}], [[], 1, None]),
        (Optional[int], [None, 1], ['a', 1.5]),
        (int | None, [None, 1], ['a', 1.5]),
        (Union[float, Sequence[float]], [1, [1, 2.0]], ['ab', ['a'], None]),
        (Tuple[int, int], [(1, 2), [1, 2]], [(1,), 'ab', (1, 'a')]),
        (Tuple[int, ...], [(), (1, 2, 3)], [(1.5,)]),
        (List[dict], [[], [{}]], [{}, [1]]),
        (Dict[str, int], [{}, dict(a=1)], [dict(a='b')]),
        (Literal['a', 'b'], ['a'], ['c', 1]),
        (torch.nn.Module, [{}, torch.nn.ReLU()], [1, 'a', None, []]),
        (Any, [1, None, 'a'], []),
    ],
)
def test_fits(annotation, right, wrong):
    for value in right:
        assert fits(value, annotation), value
    for value in wrong:
        assert not fits(value, annotation), value


@pytest.mark.parametrize(
    'annotation, right, wrong',
    [
        (int, [1, 1.5, (1, 2), None], ['a', ['a']]),
        (str, ['a', None, ['a']], [1]),
        (Sequence[Number], [[1], 1, [[0.5]]], ['a', [1, 'a']]),
        (List, [[1], ['a']], []),
        (dict, [{}, [{}], None], [1, 'a']),
        (Sequence[str], [['a'], 'a'], [1]),
        (Union[str, int], ['a', 1.5], []),
        (torch.nn.Module, ['a', 1, {}], []),
    ],
)
def test_might_fit(annotation, right, wrong):
    for value in right:
        assert might_fit(value, annotation), value
    for value in wrong:
        assert not might_fit(value, annotation), value


@pytest.mark.parametrize(
    'annotation, words',
    [
        (Optional[float], 'a number or None'),
        (Union[None, bool, List[int]], 'True or False or a list of whole numbers or None'),
        (Union[torch.nn.Module, dict], 'a dict'),
        (torch.nn.Module, 'a dict'),
        (Literal['a', 'b'], "one of 'a', 'b'"),
    ],
)
def test_describe(annotation, words):
    assert describe(annotation) == words


@pytest.mark.parametrize(
    'allowed, inside, outside, words',
    [
        (Range(0, 1), [0, 0.5, 1], [-0.1, 1.1], 'between 0 and 1'),
        (Range(0, 1, above=True, below=True), [0.5], [0, 1], 'above 0 and below 1'),
        (Range(1, whole=True), [1, 7], [0, 1.5], 'a whole number of at least 1'),
    ],
)
def test_range(allowed, inside, outside, words):
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)
    assert str(allowed) == words


class Base:
    def __init__(self, first: int, second: str = '', third: bool = False):
        pass


class Handing(Base):
    def __init__(self, own: float = 1.0, **kwargs):
        super().__init__(own, third=True, **kwargs)


class Silent(Handing):
    pass


class Keeping(Base):
    def __init__(self, own: float = 1.0, **kwargs):
        super().__init__(1)
        self.kwargs = kwargs


def test_what_a_class_takes():
    found = parameters_of(Silent)
    assert found.annotations == dict(own=float, second=str)
    assert not found.is_open
    found = parameters_of(Keeping)
    assert found.annotations == dict(own=float)
    assert found.is_open
    assert not parameters_of(Base).is_open
    assert parameters_of(lambda **options: 0).is_open


def test_options():
    check_options('part', Handing, dict(own=2, second='a'))
    check_options('part', Keeping, dict(other=2))
    check_options('part', Handing, dict(other=2), closed=False)
    check_options('part', Handing, dict(other=2), also=dict(other=int))
    with pytest.raises(UserError, match='part.other=2 must be a string'):
        check_options('part', Handing, dict(other=2), also=dict(other=str))
    with pytest.raises(UserError, match="Did you mean 'second'"):
        check_options('part', Handing, dict(secnd='a'), closed=False)
    with pytest.raises(UserError, match="Did you mean 'own'"):
        check_options('part', Keeping, dict(owns=1.0))
    for options, message in [
        (dict(third=True), "part.third: Handing has no option 'third'"),
        (dict(secnd='a'), "Did you mean 'second'?"),
        (dict(second=1), 'part.second=1 must be a string'),
        (dict(own=float('nan')), 'part.own=nan must be finite'),
    ]:
        with pytest.raises(UserError) as info:
            check_options('part', Handing, options)
        assert message in str(info.value)
    with pytest.raises(UserError, match='part: Base needs first'):
        check_options('part', Base, dict(second='a'), whole=True)
