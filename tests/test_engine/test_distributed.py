import os
import socket
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config
from runs import digits_config

WORKER = Path(__file__).with_name('distributed_worker.py')


def run_two_processes(root, *args):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    result = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            f'--master_port={port}',
            str(WORKER),
            *map(str, args),
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_two_processes(root, tmp_path, tiny_model):
    """Gradients are those of the whole batch, and ranks stay in sync through
    both stages, with and without kept inputs of the router: one launch, since
    each imports everything anew."""
    configs = [Config(dict(model=tiny_model))]
    for name, hook in (('plain', None), ('cached', dict(type='RouterCacheHook'))):
        cfg = digits_config(root, tmp_path / name, workers=1)
        cfg.default_hooks.router_cache = hook
        cfg.experiment_name = name
        cfg.log_level = 'WARNING'
        cfg.model.compile = dict(backend='eager')
        configs.append(cfg)
    paths = [tmp_path / f'{index}.py' for index in range(3)]
    for cfg, path in zip(configs, paths):
        cfg.dump(path)
    run_two_processes(root, *paths)
    for name in ('plain', 'cached'):
        assert (tmp_path / name / 'epoch_5.pth').exists()
