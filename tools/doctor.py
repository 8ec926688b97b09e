"""Say what this installation has, what it lacks, and what to install.

It also runs where ride_mm cannot be imported: `python tools/doctor.py`.
"""

import argparse
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

EXAMPLE = """example:
  python tools/doctor.py
"""
ROOT = Path(__file__).resolve().parents[1]
PYTHON = ((3, 10), (3, 13))
# Other packages with the same modules.
SAME_MODULES = {
    'mmcv': ('mmcv-lite', 'onedl-mmcv'),
    'mmengine': ('onedl-mmengine',),
    'mmpretrain': ('onedl-mmpretrain',),
}
# What an extra is for; the requirements of the tests are left out.
EXTRAS = dict(
    mim='training', runtime='training', lite='EfficientNet-Lite', export='tools/export.py'
)


class Finding(NamedTuple):
    """A line of the report.

    Args:
        subject (str): What it is about.
        found (str): What there is.
        advice (str): What to do; '' if nothing.
    """

    subject: str
    found: str
    advice: str = ''


def diagnose() -> list[Finding]:
    """Look at Python, the packages, and the machine.

    Returns:
        list[Finding]: The findings, from Python to the machine.
    """
    return [_python(), *_packages(), _setuptools(), *_machine()]


def _python() -> Finding:
    found, (oldest, newest) = sys.version_info[:2], PYTHON
    advice = ''
    if not oldest <= found <= newest:
        advice = 'use Python ' + ' to '.join('.'.join(map(str, bound)) for bound in PYTHON)
    return Finding('Python', platform.python_version(), advice)


def _packages() -> list[Finding]:
    """Each package that this one names, except those for its tests."""
    findings = []
    for extra, requirement in _requirements():
        name = re.split(r'[<>=!~ ]', requirement)[0]
        findings.append(_package(name, requirement[len(name) :], extra))
    return findings


def _requirements() -> list[tuple[str, str]]:
    """Extra and requirement, of this clone or of the installed package."""
    folder = ROOT / 'requirements'
    if folder.is_dir():
        return [
            (extra, line)
            for extra in EXTRAS
            for line in (folder / f'{extra}.txt').read_text().splitlines()
            if line and line[0] != '#'
        ]
    found = []
    for line in requires('ride_mm') or ():
        requirement, _, marker = line.partition(';')
        extra = (re.findall(r'extra == [\'"](\w+)', marker) or ['runtime'])[0]
        if extra in EXTRAS:
            found.append((extra, requirement.strip()))
    return found


def _package(name: str, bounds: str, extra: str) -> Finding:
    """One package, or the fork of it that is installed."""
    for candidate in (name, *SAME_MODULES.get(name, ())):
        try:
            found = version(candidate)
        except PackageNotFoundError:
            continue
        wrong = '' if candidate.startswith('onedl-') else out_of_bounds(found, bounds)
        advice = f"{wrong}: pip install '{candidate}{bounds}'" if wrong else ''
        return Finding(candidate, found, advice)
    if extra in ('lite', 'export'):
        return Finding(name, 'missing', f"for {EXTRAS[extra]}: pip install 'ride_mm[{extra}]'")
    wanted = 'mmcv-lite' if name == 'mmcv' else name  # nothing to compile
    return Finding(name, 'missing', f"pip install '{wanted}{bounds}'")


def out_of_bounds(found: str, bounds: str) -> str:
    """Say whether a version is too old or too new.

    Args:
        found (str): The version.
        bounds (str): Such as '>=2.0.1,<2.4.0'.

    Returns:
        str: 'too old', 'too new' or ''.
    """

    def key(text: str) -> list[int]:
        return [int(number) for number in re.findall(r'\d+', text.split('+')[0])][:3]

    for operator, bound in re.findall(r'(>=|<)([\d.]+)', bounds):
        if operator == '>=' and key(found) < key(bound):
            return 'too old'
        if operator == '<' and key(found) >= key(bound):
            return 'too new'
    return ''


def _setuptools() -> Finding:
    try:
        found = version('setuptools')
    except PackageNotFoundError:
        found = 'missing'
    if found != 'missing' and not out_of_bounds(found, '<82'):
        return Finding('setuptools', found)
    return Finding(
        'setuptools', found, "for _base_='mmpretrain::...' only: pip install 'setuptools<82'"
    )


def _machine() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [Finding('PyTorch', 'cannot be imported', str(error))]
    findings = [Finding('PyTorch', torch.__version__)]
    if not torch.cuda.is_available():
        advice = ''
        if shutil.which('nvidia-smi'):
            advice = 'there is a driver, but this PyTorch finds no GPU: see pytorch.org'
        findings.append(Finding('GPU', 'none', advice))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        findings.append(Finding(f'GPU {index}', f'{properties.name}, {memory:.0f} GiB'))
    if torch.cuda.is_available():
        nccl = '.'.join(map(str, torch.cuda.nccl.version()))
        findings.append(Finding('several GPUs', f'NCCL {nccl}'))
        bfloat16 = torch.cuda.is_bf16_supported()
    else:
        # PyTorch for macOS comes without
        mkldnn = torch.backends.mkldnn.is_available()
        bfloat16 = mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    findings.append(
        Finding('--amp', 'bfloat16' if bfloat16 else 'bfloat16 would be slow: train without --amp')
    )
    compiler = shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')
    advice = '' if compiler else 'install a C++ compiler such as g++ for compile=True'
    findings.append(Finding('compile=True', compiler or 'no C++ compiler', advice))
    return findings


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    findings = diagnose()
    widths = [max(map(len, column)) for column in list(zip(*findings))[:2]]
    for subject, found, advice in findings:
        print(f'{subject:{widths[0]}}  {found:{widths[1]}}  {advice}'.rstrip())
    number = sum(bool(finding.advice) for finding in findings)
    print('\nAll is well.' if number == 0 else f'\nThings to do: {number}, see the last column.')


if __name__ == '__main__':
    main()
