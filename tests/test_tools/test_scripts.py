import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
SCRIPTS = sorted(TOOLS.glob('*.sh')) + [TOOLS.parent / '.ci' / 'run']


def bash(*command, **env):
    return subprocess.run(
        ['bash', *map(str, command)], capture_output=True, text=True, env=dict(os.environ, **env)
    )


def fake_command(folder, name):
    """An executable that prints its arguments, one a line, and OMP's."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / name
    command.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\necho "threads $OMP_NUM_THREADS"\n')
    command.chmod(0o755)
    return folder


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
    done = bash('-n', script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    'name, args',
    [
        ('dist_train.sh', ()),
        ('dist_train.sh', ('config.py',)),
        ('dist_train.sh', ('config.py', '--amp')),
        ('dist_train.sh', ('config.py', '0')),
        ('dist_test.sh', ('config.py', 'epoch_1.pth')),
        ('dist_test.sh', ('config.py', '2', 'epoch_1.pth')),
        ('slurm_train.sh', ('partition', 'job', 'config.py')),
        ('slurm_test.sh', ('partition', 'job', 'config.py')),
    ],
)
def test_usage(name, args):
    done = bash(TOOLS / name, *args)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: bash tools/{name}')


@pytest.mark.parametrize(
    'name, args',
    [
        ('dist_train.sh', ('my config.py', '2')),
        ('dist_test.sh', ('my config.py', 'a b.pth', '2')),
    ],
)
def test_torchrun_command(name, args, tmp_path):
    fake_command(tmp_path / 'bin', 'python')
    done = bash(
        TOOLS / name,
        *args,
        '--cfg-options',
        'a="[1, 2]"',
        VIRTUAL_ENV=str(tmp_path),
        NNODES='4',
        NODE_RANK='3',
        MASTER_ADDR='head',
        PORT='1234',
        OMP_NUM_THREADS='5',
    )
    lines = done.stdout.splitlines()
    assert lines[:7] == [
        '-m',
        'torch.distributed.run',
        '--nnodes=4',
        '--node_rank=3',
        '--master_addr=head',
        '--master_port=1234',
        '--nproc_per_node=2',
    ]
    assert lines[8:] == [
        *args[:-1],
        '--launcher',
        'pytorch',
        '--cfg-options',
        'a="[1, 2]"',
        'threads 5',
    ]


def test_threads_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    fake_command(tmp_path / 'bin', 'python')
    done = bash(TOOLS / 'dist_train.sh', 'c.py', '10000', VIRTUAL_ENV=str(tmp_path))
    assert done.stdout.splitlines()[-1] == 'threads 1'


@pytest.mark.parametrize(
    'name, last',
    [
        ('slurm_train.sh', ['--work-dir', 'a dir', '--launcher', 'slurm']),
        ('slurm_test.sh', ['a dir', '--launcher', 'slurm']),
    ],
)
def test_srun_command(name, last, tmp_path):
    fake_command(tmp_path / 'bin', 'srun')
    done = bash(
        TOOLS / name,
        'gpus',
        'my job',
        'config.py',
        'a dir',
        '--amp',
        VIRTUAL_ENV=str(tmp_path),
        PATH=f'{tmp_path / "bin"}:{os.environ["PATH"]}',
        GPUS='16',
        SRUN_ARGS='--time=1:00 --quiet',
    )
    lines = done.stdout.splitlines()
    assert lines[:9] == [
        '--partition=gpus',
        '--job-name=my job',
        '--gres=gpu:8',
        '--ntasks=16',
        '--ntasks-per-node=8',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
        '--time=1:00',
        '--quiet',
    ]
    assert lines[12:-1] == ['config.py', *last, '--amp']


def test_no_usable_python(tmp_path):
    """One message, where neither an environment nor a Python is there."""
    fake_command(tmp_path / 'bin', 'python3')
    (tmp_path / 'bin' / 'python3').write_text(
        '#!/bin/bash\n[ "$1" = --version ] && echo Python 3.8.1 || exit 1\n'
    )
    for name in ('dirname', 'env'):
        (tmp_path / 'bin' / name).symlink_to(f'/usr/bin/{name}')
    script = f'source {TOOLS}/_env.sh; find_python'
    done = subprocess.run(
        ['/bin/bash', '-c', script],
        capture_output=True,
        text=True,
        env=dict(PATH=str(tmp_path / 'bin')),
    )
    assert done.returncode == 2
    assert done.stderr == (
        'error: Python 3.10 to 3.13 is needed and none is on the PATH (python3 is Python 3.8.1).\n'
    )


def test_active_environment_with_another_python(tmp_path):
    fake_command(tmp_path / 'bin', 'python')
    (tmp_path / 'bin' / 'python').write_text('#!/bin/bash\nexit 1\n')
    done = bash('-c', f'source {TOOLS}/_env.sh; set_up_environment', VIRTUAL_ENV=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: the active environment {tmp_path}')


@pytest.mark.parametrize(
    'env, prefix',
    [
        (dict(VIRTUAL_ENV='/venv', CONDA_PREFIX='/conda'), '/venv'),
        (dict(CONDA_PREFIX='/conda', CONDA_DEFAULT_ENV='mine'), '/conda'),
        (dict(CONDA_PREFIX='/conda', CONDA_DEFAULT_ENV='base'), ''),
        (dict(), ''),
    ],
)
def test_active_prefix(env, prefix):
    done = subprocess.run(
        ['bash', '-c', f'source {TOOLS}/_env.sh; active_prefix'],
        capture_output=True,
        text=True,
        env=dict(env, PATH=os.environ['PATH']),
    )
    assert done.stdout.strip() == prefix


@pytest.mark.parametrize(
    'options, processes',
    [
        ((), True),
        (('--slow', 'tests/test_models'), True),
        (('-k', 'routing'), False),
        (('-x', '-n0'), False),
        (('--numprocesses=2',), False),
    ],
)
def test_processes_of_the_tests(options, processes, tmp_path):
    """One per core, unless the user chooses tests or their number."""
    fake_command(tmp_path / 'bin', 'python')
    done = bash(TOOLS / 'run_tests.sh', *options, VIRTUAL_ENV=str(tmp_path))
    lines = done.stdout.splitlines()
    lines = lines[len(lines) - lines[::-1].index('-m') - 1 : -1]
    assert lines[:2] == ['-m', 'pytest']
    assert lines[len(lines) - len(options) :] == [*options]
    chosen = lines[2 : len(lines) - len(options)]
    assert (chosen[:2] == ['-n', 'auto']) == processes
    assert bool(chosen) == processes
