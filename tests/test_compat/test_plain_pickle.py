"""Pickles of plain data, read without calling what they name."""

import collections
import io
import os
import pickle

import numpy as np
import pytest
import torch

from ride_mm.compat.plain_pickle import load_plain_pickle


def load(content, **options):
    return load_plain_pickle(io.BytesIO(content), **options)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data(protocol):
    shared = [1]
    numbers = np.arange(6, dtype='>i2').reshape(2, 3)
    content = dict(
        numbers=[1, -2.5, None, True, 'text', b'bytes', (1,), {2}],
        shared=[shared, shared],
        ordered=collections.OrderedDict(a=1),
        array=numbers,
        fortran=np.asfortranarray(numbers),
        empty=np.zeros((0, 3)),
        scalar=np.float32(0.5),
        tensor=torch.arange(12.0).reshape(3, 4).t()[1:, ::2],
        half=torch.ones(2, dtype=torch.bfloat16),
    )
    loaded = load(pickle.dumps(content, protocol))
    assert loaded['numbers'] == content['numbers']
    assert loaded['shared'][0] is loaded['shared'][1]
    assert loaded['ordered'] == content['ordered']
    for name in ('array', 'fortran', 'empty', 'scalar'):
        np.testing.assert_array_equal(loaded[name], content[name])
        assert loaded[name].dtype == content[name].dtype
    assert torch.equal(loaded['tensor'], content['tensor'])
    assert torch.equal(loaded['half'], content['half'])


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
    assert load(content, encoding='latin1').tolist() == expected.tolist() == [7, 255]


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


def tensor(offset, size, stride):
    storage = torch.zeros(3).storage()
    return pickle.dumps(
        Calls(
            torch._utils._rebuild_tensor_v2,
            storage,
            offset,
            size,
            stride,
            False,
            collections.OrderedDict(),
        )
    )


TENSOR = pickle.dumps(torch.zeros(3), 2)


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
        pickle.dumps(Calls(torch.load, 'trace')),
        names('os.system'),
        names('numpy.load'),
        # a class for the process, and what was built before
        build(names('numpy.dtype'), (None, {'build': 1})),
        build(names('torch._utils._rebuild_tensor_v2'), {'build': 1}),
        build(TENSOR, {'layout': (0, (10**12,), (0,))}),
        # more numbers than there are
        tensor(0, (10**12,), (0,)),
        tensor(0, (3,), (9,)),
        tensor(1, (3,), (1,)),
        tensor(-1, (1,), (1,)),
        pickle.dumps(np.zeros(3), 2).replace(b'K\x03\x85', b'K\x09\x85'),
    ],
)
def test_more_than_data_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception):
        load(content)
    assert not any(tmp_path.iterdir())
    assert torch.equal(load(TENSOR), torch.zeros(3))


def test_storage_of_a_tensor_is_no_other_pickle(tmp_path):
    file = tmp_path / 'inner'
    torch.save(
        Calls(open, str(tmp_path / 'trace'), 'w'), file, _use_new_zipfile_serialization=False
    )
    content = pickle.dumps(Calls(torch.storage._load_from_bytes, file.read_bytes()))
    with pytest.raises(pickle.UnpicklingError):
        load(content)
    torch.save([1], file)
    content = pickle.dumps(Calls(torch.storage._load_from_bytes, file.read_bytes()))
    with pytest.raises(pickle.UnpicklingError):
        load(content)
    assert not (tmp_path / 'trace').exists()


def test_damage():
    """Any exception, and no crash."""
    whole = pickle.dumps([np.arange(9.0), torch.ones(4), 'text'], 2)
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            content[place] ^= 1 << int(rng.integers(8))
        try:
            load(bytes(content))
        except Exception:
            continue
