import runpy
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest


@pytest.fixture
def setup_env(root, monkeypatch):
    """The script, with a made-up set of installed packages."""
    installed = {}
    module = runpy.run_path(str(root / 'tools' / 'setup_env.py'))

    def version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    space = module['main'].__globals__
    monkeypatch.setitem(space, 'version', version)
    return SimpleNamespace(installed=installed, **module)


@pytest.mark.parametrize(
    'found, requirement, expected',
    [
        ('2.1', 'torch>=2.1', True),
        ('2.0.1', 'torch>=2.1', False),
        ('2.11.0+cpu', 'torch>=2.1', True),
        ('2.2.0', 'mmcv>=2.0.1,<2.4.0', True),
        ('2.4.0', 'mmcv>=2.0.1,<2.4.0', False),
        ('1.7.2', 'mmcv>=2.0.1,<2.4.0', False),
        ('15.0.0', 'rich', True),
    ],
)
def test_fits(setup_env, found, requirement, expected):
    assert setup_env.fits(found, requirement) is expected


def test_every_requirement_has_a_pin(setup_env):
    pinned = {setup_env.name_of(pin) for pin in setup_env.read_lines('constraints.txt')}
    needed = {setup_env.name_of(line) for line in setup_env.requirements()}
    assert needed <= pinned
    assert 'mmcv-lite' in needed and 'mmcv' not in needed


def test_the_pins_are_within_the_ranges(setup_env):
    ranges = {setup_env.name_of(line): line for line in setup_env.requirements()}
    for pin in setup_env.read_lines('constraints.txt'):
        name = setup_env.name_of(pin)
        pinned = pin.split('==')[1].split(';')[0]
        assert setup_env.fits(pinned, ranges.get(name, '')), pin


def test_an_empty_environment_gets_everything(setup_env):
    needed = setup_env.requirements()
    keep, install = setup_env.split_installed(needed)
    assert keep == {}
    assert install == needed
    pins = setup_env.read_lines('constraints.txt')
    assert setup_env.constraints_for(keep) == pins


def test_a_full_mmcv_and_a_torch_stay(setup_env):
    setup_env.installed.update({'mmcv': '2.1.0', 'torch': '2.4.1+cu121'})
    keep, install = setup_env.split_installed(setup_env.requirements())
    assert keep == setup_env.installed
    names = [setup_env.name_of(line) for line in install]
    assert 'mmcv-lite' not in names and 'torch' not in names
    assert 'mmengine' in names and 'torchvision' in names
    pins = setup_env.constraints_for(keep)
    # torchvision has to suit that torch
    assert sorted(pins) == [
        'mmcv-lite==2.2.0',
        'mmcv==2.1.0',
        'mmengine==0.10.7',
        'mmpretrain==1.2.0',
        'torch==2.4.1+cu121',
    ]


def test_the_onedl_forks_stay(setup_env):
    setup_env.installed.update({'onedl-mmengine': '0.10.12'})
    keep, install = setup_env.split_installed(setup_env.requirements())
    assert keep == setup_env.installed
    assert 'mmengine' not in [setup_env.name_of(line) for line in install]


def test_what_is_too_old_is_not_replaced(setup_env):
    setup_env.installed.update({'mmcv': '1.7.2'})
    with pytest.raises(SystemExit) as info:
        setup_env.split_installed(setup_env.requirements())
    assert 'has mmcv 1.7.2, but mmcv>=2.0.1,<2.4.0 is needed' in str(info.value)


def test_an_old_pytest_is(setup_env):
    setup_env.installed.update({'pytest': '6.0', 'setuptools': '82.0'})
    _, install = setup_env.split_installed(setup_env.requirements())
    names = [setup_env.name_of(line) for line in install]
    assert 'pytest' in names and 'setuptools' in names
