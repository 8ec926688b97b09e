import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from runs import digits_config

WORKER = Path(__file__).with_name('distributed_worker.py')


def run_two_processes(root, *args):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = dict(
        os.environ,
        PYTHONPATH=str(root),
        OMP_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='')
    result = subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
        f'--master_port={port}',
        str(WORKER), *map(str, args)
    ],
                            env=env,
                            capture_output=True,
                            text=True,
                            timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


def test_gradients_are_those_of_the_whole_batch(root, tmp_path, tiny_model):
    config = tmp_path / 'config.py'
    Config(dict(model=tiny_model)).dump(config)
    run_two_processes(root, 'gradients', config)


@pytest.mark.parametrize('cached', [False, True])
def test_ranks_stay_in_sync_through_both_stages(root, tmp_path, cached):
    cfg = digits_config(root, tmp_path / 'work', workers=1)
    if cached:
        cfg.default_hooks.router_cache = dict(type='RouterCacheHook')
    cfg.log_level = 'WARNING'
    cfg.model.compile = dict(backend='eager')
    config = tmp_path / 'config.py'
    cfg.dump(config)
    run_two_processes(root, 'train', config)
    assert (tmp_path / 'work' / 'epoch_5.pth').exists()
