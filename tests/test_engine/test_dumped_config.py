"""The config of a run, read and not run."""

import mmengine.config.config as mmengine_config
import pytest
from mmengine.config import Config
from yapf.yapflib.yapf_api import FormatCode

from ride_mm.engine.config import load_config
from ride_mm.engine.dumped_config import read_dumped_config
from ride_mm.utils.errors import UserError


@pytest.fixture(autouse=True)
def formatted_configs(monkeypatch):
    monkeypatch.setattr(mmengine_config, 'FormatCode', FormatCode)


@pytest.mark.parametrize(
    'name', ['ride_r32_cifar100_lt', 'ride_r50_imagenet_lt', 'ride_r32_digits_lt']
)
def test_what_mmengine_dumps(root, tmp_path, name):
    cfg = load_config(str(root / f'configs/{name}.py'))
    cfg.merge_from_dict(
        {'odd': {'a b': (1,), 3: [-1, 1e-3, True, None, ()]}, 'empty': {}, 'words': 'a"\'\\\n'}
    )
    file = tmp_path / 'config.py'
    cfg.dump(str(file))
    read = read_dumped_config(file)
    assert read.to_dict() == Config.fromfile(str(file)).to_dict()
    assert read.odd == {'a b': (1,), 3: [-1, 1e-3, True, None, ()]}


def test_numbers_that_are_none(tmp_path):
    file = tmp_path / 'config.py'
    Config(dict(a=float('inf'), b=-float('inf'))).dump(str(file))
    assert read_dumped_config(file).to_dict() == dict(a=float('inf'), b=-float('inf'))


@pytest.mark.parametrize(
    'text, found',
    [
        ('import os', 'line 1.*`import os`'),
        ('a = 1\nb = os.system("true")', r'line 2.*`os.system\('),
        ('a = dict(b=[dict(c=print())])', r'line 1.*`print\(\)`'),
        ('a = dict(**b)', 'line 1'),
        ('a = dict([(1, 2)])', 'line 1'),
        ('a = {**{}}', 'line 1'),
        ('a = [x for x in ()]', 'line 1'),
        ('a = 9 ** 9 ** 9', 'line 1'),
        ('a = b = 1', 'line 1'),
        ('a.b = 1', 'line 1'),
        ('a = f"{1}"', 'line 1'),
        ('a = __import__', 'line 1.*`__import__`'),
        ('a = lambda: 1', 'line 1'),
        ('a = [...]', r'line 1.*`...`'),
        ('"""text"""', 'line 1'),
        ('_base_ = "x.py"', 'line 1'),
        ('model = [1]', 'line 1'),
        ('a = (', 'line 1'),
        ('a = ' + '[' * 9999, 'line 1'),
        ('a = \x00', 'config'),
        ('filename = "x"', 'config'),
        ('a = {[]}', 'config'),
    ],
)
def test_anything_else_is_refused(tmp_path, text, found):
    file = tmp_path / 'config.py'
    file.write_text(text)
    with pytest.raises(UserError, match=f'{file}.*{found}') as info:
        read_dumped_config(file)
    assert len(str(info.value).splitlines()) == 1


@pytest.mark.parametrize('name', ['/dev/zero', '.', 'absent', 'large'])
def test_paths_that_are_no_config(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'large').write_bytes(b'#' * 2**21)
    with pytest.raises(UserError, match=f'{name}: expected the dumped'):
        read_dumped_config(name)


def test_bytes_that_are_no_text(tmp_path):
    file = tmp_path / 'config.py'
    file.write_bytes(b'a = "\xff"')
    with pytest.raises(UserError, match='not the dumped config'):
        read_dumped_config(file)
