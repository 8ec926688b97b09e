"""What an installation has, and what it lacks."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from conftest import ROOT, load_tool


@pytest.fixture
def doctor():
    return load_tool('tools/doctor.py')


def pretend(doctor, monkeypatch, **versions):
    """Only these packages are installed."""

    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor, 'version', version)


@pytest.mark.parametrize(
    'found, bounds, expected',
    [
        ('2.0.1', '>=2.0.1,<2.4.0', ''),
        ('2.11.0+cu130', '>=2.4', ''),
        ('2.0.0', '>=2.0.1,<2.4.0', 'too old'),
        ('2.4.0', '>=2.0.1,<2.4.0', 'too new'),
        ('1.10', '>=1.9', ''),
        ('1.0', '', ''),
    ],
)
def test_bounds(doctor, found, bounds, expected):
    assert doctor.out_of_bounds(found, bounds) == expected


def test_what_is_wrong_is_named(doctor, monkeypatch):
    versions = {'mmengine': '0.10.5', 'onedl-mmcv': '9.9', 'torch': '2.11.0', 'setuptools': '82.0'}
    pretend(doctor, monkeypatch, **versions)
    found = {finding.subject: finding[1:] for finding in doctor.diagnose()}
    mmengine = "too old: pip install 'mmengine>=0.10.6,<1.0.0'"
    assert found['mmengine'] == ('0.10.5', mmengine)
    assert found['onedl-mmcv'] == ('9.9', '') and 'mmcv' not in found
    assert found['torch'] == ('2.11.0', '')
    assert found['mmpretrain'] == ('missing', "pip install 'mmpretrain>=1.2.0,<2.0.0'")
    assert found['onnx'] == ('missing', "for tools/export.py: pip install 'ride_mm[export]'")
    assert "pip install 'setuptools<82'" in found['setuptools'][1]
    assert 'pytest' not in found


def test_an_installed_package_names_the_same(doctor, monkeypatch):
    from_files = sorted(doctor._requirements())
    monkeypatch.setattr(doctor, 'ROOT', ROOT / 'absent')
    lines = [
        f'{line}; extra == "{extra}"' if extra != 'runtime' else line for extra, line in from_files
    ]
    monkeypatch.setattr(doctor, 'requires', lambda name: [*lines, 'pytest>=7; extra == "tests"'])
    assert sorted(doctor._requirements()) == from_files


def test_this_environment(doctor, capsys):
    doctor.main([])
    assert 'mmengine' in capsys.readouterr().out


def test_without_any_package():
    """It needs none itself."""
    code = (
        'import runpy, sys\n'
        'for name in ("torch", "mmengine", "mmcv", "mmpretrain", "ride_mm", "rich", "numpy"):\n'
        '    sys.modules[name] = None\n'
        f'runpy.run_path({str(ROOT / "tools/doctor.py")!r}, run_name="__main__")'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'PyTorch' in done.stdout and 'cannot be imported' in done.stdout
