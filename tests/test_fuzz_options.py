"""A small sample of tests/stress/fuzz_options.py."""

from fuzz_options import fuzz, inputs


def test_right_and_wrong_options(tmp_path):
    outcomes = fuzz(tmp_path, seed=0, number=40)
    assert len(outcomes) == 40
    assert not outcomes.bad, outcomes.bad[0]


def test_inputs():
    found = list(inputs(seed=0))
    assert len(found) > 1000
    assert found == list(inputs(seed=0))
    assert {one.is_right for one in found} == {True, False}
