"""Install what this project needs into the environment that runs this.

With `--pinned`, every version is that of requirements/constraints.txt. Without,
suitable packages that are already installed stay as they are, and an unsuitable
one is an error. A second call returns at once.

This is pip with a constraints file, except for what pip cannot do: keep an mmcv
or a onedl-* fork instead of installing another package with the same modules
over it, refuse an unsuitable version in one line, and return at once.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = Path(sys.prefix, 'ride_mm_environment.txt')
# a setuptools that builds wheels by itself and still has pkg_resources
SETUPTOOLS = 'setuptools>=70.1,<82'
OPENMMLAB = ('mmcv-lite', 'mmengine', 'mmpretrain')
# Other packages with the same modules, which must not be overwritten.
SAME_MODULES = {
    'mmcv-lite': ('mmcv', 'onedl-mmcv'),
    'mmengine': ('onedl-mmengine',),
    'mmpretrain': ('onedl-mmpretrain',),
}


def read_lines(name: str) -> list[str]:
    text = (ROOT / 'requirements' / name).read_text()
    return [line for line in text.splitlines() if line and line[0] != '#']


def name_of(requirement: str) -> str:
    return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')


def requirements() -> list[str]:
    """What the two commands need; mmcv-lite is enough for classification."""
    core = [re.sub(r'^mmcv\b', 'mmcv-lite', line) for line in read_lines('mim.txt')]
    others = sum(map(read_lines, ('runtime.txt', 'export.txt', 'lite.txt', 'tests.txt')), [])
    return core + others + [SETUPTOOLS]


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def fits(found: str, requirement: str) -> bool:
    """Whether a version is within the range of a requirement."""

    def key(text):
        return [int(n) for n in re.findall(r'\d+', text.split('+')[0])][:3]

    for operator, bound in re.findall(r'(>=|<)([\d.]+)', requirement):
        if (key(found) >= key(bound)) != (operator == '>='):
            return False
    return True


def split_installed(needed: list[str]) -> tuple:
    """Split requirements into what stays as it is and what to install.

    Returns:
        tuple: The kept versions by name, and the other requirements.
    """
    keep: dict[str, str] = {}
    install = []
    replaceable = [*read_lines('tests.txt'), SETUPTOOLS]
    for requirement in needed:
        name = name_of(requirement)
        aliases = (name, *SAME_MODULES.get(name, ()))
        alias = next(filter(installed_version, aliases), name)
        found = installed_version(alias)
        if found and (alias.startswith('onedl-') or fits(found, requirement)):
            keep[alias] = found
        elif found is None or requirement in replaceable:
            install.append(requirement)
        else:
            wanted = requirement.replace(name, alias, 1)
            sys.exit(
                f'error: this environment ({sys.prefix}) has {alias} {found}, but {wanted} is '
                'needed. Change it, or deactivate the environment to create a .venv instead.'
            )
    return keep, install


def constraints_for(keep: dict[str, str]) -> list[str]:
    """Constraints for an environment that keeps some of its versions.

    If it has a torch of its own, the other pins need not suit it: only those of
    the OpenMMLab packages count then.
    """
    pins = read_lines('constraints.txt')
    pins = [pin for pin in pins if installed_version(name_of(pin)) is None]
    if 'torch' in keep:
        pins = [pin for pin in pins if name_of(pin) in OPENMMLAB]
    return pins + [f'{name}=={found}' for name, found in keep.items()]


def fingerprint() -> str:
    """All that determines an installation: if it is as before, nothing is to be done."""
    files = sorted((ROOT / 'requirements').glob('*.txt'))
    files += [ROOT / 'setup.py', ROOT / 'ride_mm' / 'version.py']
    return '\n'.join([str(ROOT), sys.version, *(file.read_text() for file in files)])


def pip(*args: str) -> None:
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    status = subprocess.run([*command, *args]).returncode
    if status:
        sys.exit(
            f'error: `pip {" ".join(args)}` failed, see above. The next call continues from here.'
        )


def main() -> None:
    current = fingerprint()
    if STAMP.exists() and STAMP.read_text() == current:
        return
    start = time.time()
    pins, needed = read_lines('constraints.txt'), requirements()
    if '--pinned' not in sys.argv:
        keep, needed = split_installed(needed)
        pins = constraints_for(keep)
    if importlib.util.find_spec('pip') is None:
        subprocess.run([sys.executable, '-m', 'ensurepip'], check=True)
    if needed:
        names = [name_of(requirement) for requirement in needed]
        print(f'[1/2] Installing {", ".join(names)} into {sys.prefix}')
        if 'torch' in names:
            print('PyTorch is a download of several gigabytes: this can take some minutes')
        sys.stdout.flush()
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder, 'constraints.txt')
            constraints.write_text('\n'.join(pins))
            pip('install', '-c', str(constraints), *needed)
    print('[2/2] Installing ride_mm itself', flush=True)
    pip('install', '--quiet', '--no-deps', '--no-build-isolation', '--editable', str(ROOT))
    STAMP.write_text(current)
    print(f'The environment is ready after {time.time() - start:.0f} s.')


if __name__ == '__main__':
    main()
