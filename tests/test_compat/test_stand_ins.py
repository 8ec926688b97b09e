"""Pickles of arrays, read without calling what they name."""

import io
import os
import pickle

import numpy as np
import pytest
import torch

from ride_mm.compat.stand_ins import load_arrays


def load(content):
    return load_arrays(io.BytesIO(content))


@pytest.mark.parametrize('protocol', range(pickle.DEFAULT_PROTOCOL + 1))
def test_plain_data(protocol):
    shared = [1]
    numbers = np.arange(6, dtype='>i2').reshape(2, 3)
    content = dict(
        numbers=[1, -2.5, None, True, 'text', b'bytes', (1,)],
        shared=[shared, shared],
        array=numbers,
        fortran=np.asfortranarray(numbers),
        empty=np.zeros((0, 3)),
        scalar=np.float32(0.5),
    )
    loaded = load(pickle.dumps(content, protocol))
    assert loaded['numbers'] == content['numbers']
    assert loaded['shared'][0] is loaded['shared'][1]
    for name in ('array', 'fortran', 'empty', 'scalar'):
        np.testing.assert_array_equal(loaded[name], content[name])
        assert loaded[name].dtype == content[name].dtype


def test_arrays_of_python_2():
    """As the files of CIFAR have them: texts instead of bytes."""
    content = (
        b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n'
        b'cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85'
        b'cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R'
        b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
        b'\x89U\x02\x07\xfftb.'
    )
    expected = pickle.loads(content, encoding='latin1')
    assert load(content).tolist() == expected.tolist() == [7, 255]


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def build(target, state):
    """A pickle that sets the state of what another one makes."""
    return target[:-1] + pickle.dumps(state, 0)[:-1] + b'b.'


def names(path, protocol=2):
    module, name = path.rsplit('.', 1)
    return b'\x80\x02c' + f'{module}\n{name}\n'.encode() + b'.'


@pytest.mark.parametrize(
    'content',
    [
        pickle.dumps(Calls(os.system, 'touch trace')),
        pickle.dumps(Calls(eval, '1')),
        pickle.dumps(Calls(getattr, [], 'append')),
        pickle.dumps(np.array([[]], dtype=object)),
        pickle.dumps(np.zeros(2, dtype=[('a', 'i4')])),
        # raw memory, as an array of pointers
        pickle.dumps(Calls(np.ndarray, (1,), 'O', b'12345678')),
        pickle.dumps(Calls(np.dtype, 'O')),
        pickle.dumps(torch.zeros(3)),
        names('os.system'),
        names('numpy.load'),
        # a class for the process, and what was built before
        build(names('numpy.dtype'), (None, {'build': 1})),
        # more numbers than there are
        pickle.dumps(np.zeros(3), 2).replace(b'K\x03\x85', b'K\x09\x85'),
    ],
)
def test_more_than_data_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception):
        load(content)
    assert not any(tmp_path.iterdir())


def test_damage():
    """Any exception, and no crash."""
    whole = pickle.dumps([np.arange(9.0), 'text'], 2)
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            content[place] ^= 1 << int(rng.integers(8))
        try:
            load(bytes(content))
        except Exception:
            continue
