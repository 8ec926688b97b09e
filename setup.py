import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = 'ride_mm'
EXTRAS = ('completion', 'demo', 'export', 'hub', 'lite', 'mim', 'tests')
MIM_CONTENT = ('configs', 'tools', 'weights', 'model-index.yml')


def read(name):
    path = ROOT / name
    return path.read_text(encoding='utf-8') if path.exists() else ''


def requirements(name):
    lines = read(f'requirements/{name}.txt').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def copy_mim(target):
    """Put copies of what ``mim`` looks for into ``target/.mim``."""
    mim = Path(target, '.mim')
    mim.mkdir(parents=True)
    for name in MIM_CONTENT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, mim / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc')
            )
        else:
            shutil.copy2(source, mim / name)


def link_mim(target):
    """Put links to what ``mim`` looks for into ``target/.mim``."""
    mim = Path(target, '.mim')
    shutil.rmtree(mim, ignore_errors=True)
    mim.mkdir()
    try:
        for name in MIM_CONTENT:
            (mim / name).symlink_to(Path('..', '..', name))
    except OSError:
        # Windows without the right to link: without .mim, the clone is used.
        shutil.rmtree(mim)


class BuildPy(build_py):
    """Add ``.mim``: copies in the build tree, links in the source tree."""

    def run(self):
        # What an earlier build left there would end up in the wheel.
        shutil.rmtree(Path(self.build_lib, PACKAGE), ignore_errors=True)
        super().run()
        if self.editable_mode:
            link_mim(ROOT / PACKAGE)
        else:
            copy_mim(Path(self.build_lib, PACKAGE))


class EditableWheel(editable_wheel):
    """Tell ``mim`` where an editable install keeps the package.

    ``mim`` and ``mmengine`` join the folder of the metadata (site-packages)
    with the first line of ``top_level.txt``; an absolute path there leads
    them to the source tree.
    """

    def _ensure_dist_info(self):
        super()._ensure_dist_info()
        top_level = Path(self.dist_info_dir, 'top_level.txt')
        top_level.write_text(f'{ROOT / PACKAGE}\n{PACKAGE}\n')


if __name__ == '__main__':
    extras = {name: requirements(name) for name in EXTRAS}
    extras['all'] = sum(extras.values(), [])
    extras['docs'] = requirements('docs')
    setup(
        name=PACKAGE,
        version=re.search("'(.+)'", read(f'{PACKAGE}/version.py'))[1],
        description='RIDE: long-tailed recognition by routing diverse '
        'distribution-aware experts, a plugin for MMPretrain',
        long_description=read('README.md'),
        long_description_content_type='text/markdown',
        license='Apache-2.0',
        classifiers=[
            'Operating System :: POSIX :: Linux',
            'Programming Language :: Python :: 3.10',
            'Programming Language :: Python :: 3.11',
            'Programming Language :: Python :: 3.12',
            'Programming Language :: Python :: 3.13',
            'Topic :: Scientific/Engineering :: Image Recognition',
        ],
        packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
        package_data={PACKAGE: ['py.typed'], f'{PACKAGE}.analysis.report': ['*.html', '*.css']},
        python_requires='>=3.10, <3.14',
        install_requires=requirements('runtime'),
        extras_require=extras,
        entry_points=dict(console_scripts=['ride-mm=ride_mm.cli:main']),
        cmdclass=dict(build_py=BuildPy, editable_wheel=EditableWheel),
        zip_safe=False,
    )
