import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from statistics import mean

import pytest
import setuptools
import yaml
from mmengine.utils import digit_version

from ride_mm.analysis.comparison.seeds import read_seeds

CONTENT = ('configs', 'tools', 'weights', 'model-index.yml')


@pytest.fixture
def project(root, tmp_path):
    """A copy of what packaging needs, to be built in."""
    project = tmp_path / 'project'
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('ride_mm', 'requirements', 'configs', 'tools', 'weights'):
        shutil.copytree(root / name, project / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'model-index.yml'):
        shutil.copy(root / name, project / name)
    return project


def run(cwd, code, **env):
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=cwd,
        env=dict(os.environ, **env),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mim_links(project):
    setup = runpy.run_path(str(project / 'setup.py'))
    for _ in range(2):
        setup['link_mim'](project / 'ride_mm')
        mim = project / 'ride_mm' / '.mim'
        for name in CONTENT:
            assert (mim / name).is_symlink()
            assert (mim / name).resolve() == project / name


# as in the environment that tools/run_tests.sh makes
builds_wheels = pytest.mark.skipif(
    digit_version(setuptools.__version__) < digit_version('70.1'),
    reason='setuptools makes wheels by itself from 70.1 on',
)


@builds_wheels
def test_wheel(project):
    # an editable install and an older build were there before
    setup = runpy.run_path(str(project / 'setup.py'))
    setup['link_mim'](project / 'ride_mm')
    stale = project / 'build' / 'lib' / 'ride_mm' / '.mim' / 'stale.py'
    stale.parent.mkdir(parents=True)
    stale.touch()

    run(project, 'from setuptools import build_meta; build_meta.build_wheel(".")')
    (wheel,) = project.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        train = archive.read('ride_mm/.mim/tools/train.py')
        metadata = archive.read(
            'ride_mm-{}.dist-info/METADATA'.format(wheel.name.split('-')[1])
        ).decode()
    assert train == (project / 'tools' / 'train.py').read_bytes()
    for name in (
        'configs/ride_r32_digits_lt.py',
        'configs/_base_/default_runtime.py',
        'model-index.yml',
        'tools/dist_train.sh',
        'tools/test.py',
        'weights/ride_r32_digits_lt/model.safetensors',
    ):
        assert f'ride_mm/.mim/{name}' in names
    sources = (project / 'ride_mm').rglob('*.py')
    assert {
        path.relative_to(project).as_posix() for path in sources if '.mim' not in path.parts
    } <= set(names)
    for name in ('page.html', 'parts.html', 'style.css'):
        assert f'ride_mm/analysis/report/{name}' in names
    assert not [name for name in names if 'stale' in name]
    assert not [name for name in names if name.startswith(('tests', 'tools'))]

    # a full mmcv is never replaced by mmcv-lite, nor a torch by another
    required = [
        line.split(':')[1].split(';')[0].strip()
        for line in metadata.splitlines()
        if line.startswith('Requires-Dist') and 'extra' not in line
    ]
    assert sorted(name.split('>')[0] for name in required) == [
        'Jinja2',
        'matplotlib',
        'numpy',
        'rich',
        'safetensors',
        'scikit-learn',
        'scipy',
        'torchmetrics',
    ]
    assert 'mmcv-lite' not in metadata


@builds_wheels
def test_editable_install(project, tmp_path):
    """``.mim`` is found where mmengine, with the same code as mim, looks."""
    target = tmp_path / 'site-packages'
    target.mkdir()
    # what pip calls
    run(project, f'from setuptools import build_meta; build_meta.build_editable({str(target)!r})')
    (wheel,) = target.glob('*.whl')
    shutil.unpack_archive(wheel, target, format='zip')
    found = run(
        tmp_path,
        'from mmengine.utils import get_installed_path; print(get_installed_path("ride_mm"))',
        PYTHONPATH=str(target),
    )
    assert found.strip() == str(project / 'ride_mm')
    assert (project / 'ride_mm' / '.mim' / 'tools' / 'train.py').is_file()


def test_names_of_an_installed_package(project, tmp_path):
    """From the layout of a wheel, elsewhere, without pkg_resources."""
    site = tmp_path / 'site-packages'
    site.mkdir()
    setup = runpy.run_path(str(project / 'setup.py'))
    setup['copy_mim'](project / 'ride_mm')
    shutil.move(project / 'ride_mm', site)
    (tmp_path / 'child.py').write_text("_base_ = 'ride_mm::baselines/ce_r32_cifar100_lt.py'\n")
    found = run(
        tmp_path,
        """
import sys
sys.modules['pkg_resources'] = None
import ride_mm
from mmengine.config import Config
from mmpretrain import get_model
print(ride_mm.__file__)
print(Config.fromfile('child.py').model.type)
print(type(get_model('ride_r32_digits_lt')).__name__)
""",
        PYTHONPATH=str(site),
    ).split()
    assert found == [str(site / 'ride_mm' / '__init__.py'), 'RIDEClassifier', 'RIDEClassifier']


def test_model_index(root):
    """Every config that it lists exists, and the other way round."""
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    models = [
        model
        for path in index['Import']
        for model in yaml.safe_load((root / path).read_text())['Models']
    ]
    configs = {
        path.relative_to(root).as_posix()
        for folder in ('configs', 'configs/baselines')
        for path in (root / folder).glob('*.py')
    }
    assert {model['Config'] for model in models} == configs
    # Accuracy is that of the results.
    figures = {
        model['Name']: model['Results'][0]['Metrics']
        for model in models
        if model['Results'][0]['Metrics']
    }
    assert {*figures} == {
        'ce_r32_cifar100_lt',
        'ldam_drw_r32_cifar100_lt',
        'ride_lite0_cifar100_lt',
        'ride_r32_cifar100_lt',
        'ride_r32_cifar100_lt_fast',
    }
    for name, metrics in figures.items():
        files = [*root.glob(f'results/{name}_amp_seed*.json')] or [
            *root.glob(f'results/{name}_seed*.json')
        ]
        (results,) = read_seeds(files).values()
        assert metrics['Seeds'] == len(results)
        for key, figure in (('Top 1', 'overall'), ('Few-shot', 'few')):
            assert metrics[f'{key} Accuracy'] == pytest.approx(
                mean(result['figures']['final'][f'long_tail/{figure}'] for result in results),
                abs=0.05,
            )


def test_tools_have_names_of_their_own(root):
    """``mim run ride_mm NAME`` runs the first file of this name."""
    names = [path.name for path in (root / 'tools').rglob('*') if path.suffix in ('.py', '.sh')]
    assert len(names) == len(set(names))


def test_import_says_nothing_and_needs_nothing_of_unix(root):
    """As on Windows, where these modules are missing."""
    code = """
import sys
for name in ('fcntl', 'grp', 'pwd', 'resource', 'termios'):
    sys.modules[name] = None
import ride_mm
for stream in (sys.stdout, sys.stderr):
    print('imported', file=stream)
import ride_mm.analysis
import ride_mm.engine.launch
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for said in (done.stdout, done.stderr):
        assert said.startswith('imported\n'), said


def test_it_trains_without_what_windows_lacks(root, tmp_path):
    code = f"""
import os, platform, signal, sys
# these go by the name of the system
import matplotlib.pyplot, mmpretrain.apis, torchmetrics
for name in ('fcntl', 'grp', 'pwd', 'resource', 'termios'):
    sys.modules[name] = None
for module, names in (
    (os, 'set_blocking sysconf register_at_fork O_DIRECTORY fork sched_getaffinity'),
    (signal, 'SIGUSR1 SIGCHLD SIGALRM SIGKILL pthread_sigmask'),
):
    for name in names.split():
        delattr(module, name)
# that of Linux refuses pipes that block
signal.set_wakeup_fd = lambda *_, **__: -1
sys.path.insert(0, 'tests/test_engine')
from pathlib import Path
from runs import digits_config
from ride_mm.engine import launch, sweep
platform.system = lambda: 'Windows'  # for MMEngine
launch.train(digits_config(Path('.'), {str(tmp_path)!r}))
assert len(sweep.share_machine(None, 2)) >= 1
"""
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'epoch_5.pth').is_file()


def test_editable_install_without_links(monkeypatch, tmp_path, root):
    setup = runpy.run_path(str(root / 'setup.py'))
    (tmp_path / 'package').mkdir()

    def refuse(*_):
        raise OSError('a required privilege is not held')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    setup['link_mim'](tmp_path / 'package')
    assert not (tmp_path / 'package/.mim').exists()
