"""What a benchmark runs on: description, versions, clock and memory."""
import ctypes
import os
import platform
import re
from pathlib import Path
from typing import Dict, Optional

import mmengine
import mmpretrain
import torch
import torchvision

from ride_mm import __version__

_FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')
_STATUS = Path('/proc/self/status')
_M_MMAP_THRESHOLD = -3
_CLEAR_REFS = Path('/proc/self/clear_refs')


def describe(device: str, threads: Optional[int] = None) -> dict:
    """Describe the machine and the software.

    Args:
        device (str): "cpu" or "cuda".
        threads (int, optional): Threads of a contender. Defaults to None,
            which means PyTorch's default.

    Returns:
        dict: Processor, instruction sets, memory, GPU and versions.
    """
    cpuinfo = _read('/proc/cpuinfo')
    model = re.search(r'model name\s*: (.*)', cpuinfo)
    flags = re.search(r'flags\s*: (.*)', cpuinfo)
    flags = set(flags[1].split()) if flags else set()
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return dict(
        device=device,
        cpu=model[1] if model else platform.processor(),
        cores=len(os.sched_getaffinity(0)),
        threads=threads or torch.get_num_threads(),
        instruction_sets=[flag for flag in _FLAGS if flag in flags],
        memory_gib=round(memory / 2**30, 1),
        gpu=torch.cuda.get_device_name() if device == 'cuda' else None,
        versions=dict(
            python=platform.python_version(),
            torch=torch.__version__,
            torchvision=torchvision.__version__,
            mmengine=mmengine.__version__,
            mmpretrain=mmpretrain.__version__,
            ride_mm=__version__))


def one_line(description: dict) -> str:
    """Say in a line what :func:`describe` found."""
    parts = [
        description['gpu'], description['cpu'],
        f"{description['cores']} cores, {description['threads']} threads",
        ' '.join(description['instruction_sets']),
        f"{description['memory_gib']} GiB",
        f"torch {description['versions']['torch']}"
    ]
    return ', '.join(part for part in parts if part)


def synchronize(device: str) -> None:
    """Wait for the GPU, whose work goes on when a call has returned."""
    if device == 'cuda':
        torch.cuda.synchronize()


class PeakMemory:
    """Most memory in use at once, above what was in use at the start.

    On CUDA that of the allocator. On the CPU resident memory, which counts
    what libraries take for themselves, a third of a step with oneDNN; free
    memory is given back first, or the step would find there what it needs.
    This makes allocation slower: not for use while time is measured.

    Args:
        device (str): "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self.device = device
        synchronize(device)
        if device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        elif _CLEAR_REFS.exists():
            libc = ctypes.CDLL(None)
            # gaps between blocks are left to chance, whole pages are not
            libc.mallopt(_M_MMAP_THRESHOLD, 65536)
            libc.malloc_trim(0)
            _CLEAR_REFS.write_text('5')
            self._before = _resident()['VmRSS']

    def read(self) -> Optional[int]:
        """Bytes, or None where the system does not tell (not Linux)."""
        synchronize(self.device)
        if self.device == 'cuda':
            return torch.cuda.max_memory_allocated() - self._before
        if not _CLEAR_REFS.exists():
            return None
        return _resident()['VmHWM'] - self._before

    def reserved(self) -> Optional[int]:
        """Bytes of the GPU that are taken in all, None on the CPU.

        What CUDA graphs keep for themselves shows here alone.
        """
        if self.device == 'cuda':
            return torch.cuda.max_memory_reserved()


def _resident() -> Dict[str, int]:
    found = re.findall(r'(VmRSS|VmHWM):\s+(\d+) kB', _STATUS.read_text())
    return {name: int(kilobytes) * 1024 for name, kilobytes in found}


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ''
