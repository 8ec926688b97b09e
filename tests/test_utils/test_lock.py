import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import start_method

from ride_mm.utils.errors import UserError, run_tool
from ride_mm.utils.lock import lock_work_dir

LOCK = """
import sys
from ride_mm.utils.lock import lock_work_dir
lock_work_dir(sys.argv[1])
"""


def hold(work_dir, locked):
    lock_work_dir(work_dir)
    locked.set()
    time.sleep(300)


def test_one_process_at_a_time(root, tmp_path):
    work_dir = str(tmp_path / 'run')
    context = multiprocessing.get_context(start_method())
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
    again = subprocess.run(
        [sys.executable, '-c', LOCK, work_dir], cwd=root, capture_output=True, timeout=60
    )
    assert f'is in use by process {os.getpid()} ' in again.stderr.decode()


def test_interrupted_in_a_line(capsys):

    def main():
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'
