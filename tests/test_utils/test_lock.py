import multiprocessing
import os
import re
import signal
import time

import pytest

from ride_mm.utils.errors import UserError, run_tool
from ride_mm.utils.lock import lock_work_dir


def hold(work_dir, locked):
    lock_work_dir(work_dir)
    locked.set()
    time.sleep(300)


def try_to_lock(work_dir, now, errors):
    now.wait(60)
    try:
        lock_work_dir(work_dir)
    except UserError as error:
        errors.put(str(error))


def test_one_process_at_a_time(tmp_path):
    work_dir = str(tmp_path / 'run')
    context = multiprocessing.get_context('forkserver')
    # Started before this process has the lock, which a fork would have, too.
    ours, errors = context.Event(), context.SimpleQueue()
    third = context.Process(target=try_to_lock, args=(work_dir, ours, errors))
    third.start()
    locked = context.Event()
    other = context.Process(target=hold, args=(work_dir, locked))
    other.start()
    try:
        assert locked.wait(60)
        with pytest.raises(UserError) as error:
            lock_work_dir(work_dir)
        assert re.search(rf'in use by process {other.pid} on .* since 20', str(error.value))
    finally:
        other.kill()
        other.join()
    # nothing is left by what was killed; the same process may come again
    lock_work_dir(work_dir)
    lock_work_dir(work_dir)
    ours.set()
    third.join(60)
    assert f'is in use by process {os.getpid()} ' in errors.get()


def test_interrupted_in_a_line(capsys):
    # A job in the background of a shell would ignore it.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:
            run_tool(lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert end.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'
