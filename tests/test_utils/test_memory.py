import multiprocessing
import platform
import resource

import pytest
import torch

from ride_mm.utils.memory import keep_freed_memory

SIZE = 64 * 2**20


def page_faults(keep: bool, connection) -> None:
    if keep:
        keep_freed_memory()
    torch.zeros(SIZE, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(SIZE, dtype=torch.uint8)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def measured(keep: bool) -> int:
    context = multiprocessing.get_context('forkserver')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=page_faults, args=(keep, sender))
    process.start()
    process.join()
    return receiver.recv()


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc has the setting')
def test_freed_memory_is_used_again_without_new_pages():
    pages = 4 * SIZE // resource.getpagesize()
    assert measured(keep=False) > 0.9 * pages
    assert measured(keep=True) < 0.5 * pages
