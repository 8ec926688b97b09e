"""Commands side by side: small Python programs."""
import os
import sys
import time

import pytest
import torch

from ride_mm.utils import jobs
from ride_mm.utils.errors import UserError
from ride_mm.utils.jobs import Job, run_jobs, share_machine


class Programs(Job):

    def __init__(self, log, *programs, mistake=False):
        self.log = log
        self.programs = programs
        self.mistake = mistake

    def commands(self):
        for program in self.programs:
            yield [sys.executable, '-c', program]
        if self.mistake:
            raise UserError('what it left is no good')


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(jobs, '_PAUSE', .01)


def test_one_after_the_other_with_a_share_of_the_machine(tmp_path):
    show = 'import os; print(os.environ["SHARE"])'
    many = [
        Programs(tmp_path / str(i), show, 'print("second")') for i in range(5)
    ]
    reported = []
    assert run_jobs(
        many, [dict(SHARE='a'), dict(SHARE='b')],
        report=reported.extend) == []
    assert sorted(map(many.index, reported)) == list(range(5))
    logs = [job.log.read_text().splitlines() for job in many]
    assert {log[0] for log in logs} == {'a', 'b'}
    assert {tuple(log[1:]) for log in logs} == {('second', )}


def test_a_failure_stays_alone(tmp_path):
    bad = Programs(tmp_path / 'bad', 'import sys; sys.exit("disk full")',
                   'print("never")')
    left = Programs(tmp_path / 'left', 'print("done")', mistake=True)
    good = Programs(tmp_path / 'good', 'print("done")')
    assert run_jobs([bad, left, good], [{}]) == [bad, left]
    assert bad.log.read_text() == 'disk full\n'
    assert left.log.read_text() == 'done\nerror: what it left is no good\n'
    assert good.log.read_text() == 'done\n'


def test_nothing_is_left_at_work(tmp_path):
    wait = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'
    job = Programs(tmp_path / 'log', wait)

    def interrupt(_):
        if job.log.exists() and job.log.read_text().endswith('\n'):
            raise KeyboardInterrupt

    begin = time.time()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], [{}], report=interrupt)
    assert time.time() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(job.log.read_text()), 0)


def test_files_stay_open(tmp_path):
    with (tmp_path / 'file').open('w') as file:
        job = Programs(
            tmp_path / 'log', 'import os, sys; os.fstat('
            f'{file.fileno()}); print("open")')
        assert run_jobs([job], [{}], [file.fileno()]) == []
        assert run_jobs([job], [{}]) == [job]
    assert job.log.read_text().startswith('open\nTraceback')


@pytest.fixture
def machine(monkeypatch):

    def make(cores, gpus=0, gigabytes=64, visible=None):
        monkeypatch.setattr(torch, 'get_num_threads', lambda: cores)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
        monkeypatch.setattr(jobs, '_memory', lambda: gigabytes * 2**30)
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        if visible is not None:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)

    return make


@pytest.mark.parametrize('options, jobs_asked, most, number, threads', [
    (dict(cores=8), None, 20, 8, '1'),
    (dict(cores=8), None, 3, 3, '2'),
    (dict(cores=8, gigabytes=7), None, 20, 3, '2'),
    (dict(cores=8, gigabytes=1), None, 20, 1, '8'),
    (dict(cores=8), 2, 20, 2, '4'),
    (dict(cores=2), 5, 20, 5, '1'),
])
def test_cores(machine, options, jobs_asked, most, number, threads):
    machine(**options)
    assert share_machine(jobs_asked,
                         most) == [dict(OMP_NUM_THREADS=threads)] * number


def test_gpus(machine):
    machine(cores=8, gpus=2, gigabytes=1)
    assert share_machine(None, 20) == [
        dict(OMP_NUM_THREADS='4', CUDA_VISIBLE_DEVICES=gpu) for gpu in '01'
    ]
    machine(cores=8, gpus=2, visible='5,7')
    found = share_machine(3, 20)
    assert [each['CUDA_VISIBLE_DEVICES'] for each in found] == ['5', '7', '5']


def test_memory_of_this_machine():
    assert jobs._memory() > 2**28
