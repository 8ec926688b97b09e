"""A small sample of tests/stress/fuzz_files.py."""

import pytest
from fuzz_files import fuzz
from outcomes import BAD, Outcome, Outcomes, refusal, try_input

from ride_mm.utils.errors import UserError


def test_damaged_and_hostile_files(tmp_path):
    outcomes = fuzz(tmp_path, seed=0, number=30)
    assert len(outcomes) == 30
    assert not outcomes.bad, outcomes.bad[0]


def refuse(message):
    raise UserError(message)


@pytest.mark.parametrize(
    'call, wrong, name',
    [
        (lambda: refuse('file.pkl: a message of one line'), None, 'refused'),
        (lambda: refuse('file.pkl: a message of\ntwo lines'), None, 'unclear message'),
        (lambda: refuse('no'), None, 'unclear message'),
        (lambda: open('absent/file'), None, 'refused'),
        (lambda: 1 / 0, None, 'trace'),
        (lambda: 1, None, 'accepted'),
        (lambda: 1, 'it is odd', 'wrongly accepted'),
    ],
)
def test_outcomes(call, wrong, name):
    assert try_input(call, lambda _: wrong).name == name


def test_what_takes_too_long():

    def call():
        while True:
            try:
                while True:
                    pass
            except Exception:
                pass

    assert try_input(call, limit=1).name == 'too slow'


def test_table_and_exit_status(capsys):
    outcomes = Outcomes()
    outcomes.add('lists', 'a', Outcome('accepted'))
    assert outcomes.finish() == 0
    outcomes.add('lists', 'b', Outcome('trace', 'ZeroDivisionError'))
    assert outcomes.finish() == 1
    printed = capsys.readouterr().out
    assert 'lists: b: trace: ZeroDivisionError' in printed
    assert '2 inputs in 0 s' in printed
    assert refusal('x').name in BAD
