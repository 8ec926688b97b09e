"""Tiny but whole training runs on the digits, for the tests of the engine."""

import copy
import logging
import os
import socket

import torch
import torch.multiprocessing
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ride_mm.engine import launch

STAGE_1, STAGE_2 = 3, 2


def digits_config(root, work_dir, workers=0, **options) -> Config:
    """Three epochs of the experts, two of the router: seconds."""
    cfg = Config.fromfile(root / 'configs/ride_r32_digits_lt.py')
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.depth = cfg.model.neck.expert.depth = 20
    # 105 images, with classes in all three groups.
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = workers
        loader.dataset.max_count = 32
    for metric in (*cfg.val_evaluator, *cfg.test_evaluator):
        metric.thresholds = (5, 20)
    # As scanned, not enlarged.
    size = dict(type='Resize', scale=(8, 8))
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline[0] = size
        # 11 images of each class.
        loader.dataset.indices = list(range(0, 440, 4))
    cfg.train_dataloader.dataset.pipeline[0] = size
    cfg.train_dataloader.dataset.pipeline[2].size = 8
    cfg.train_dataloader.batch_size = 22
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': STAGE_1 + STAGE_2,
            'train_cfg.val_interval': 10,
            'param_scheduler.0.end': 2,
            'param_scheduler.1.milestones': [1, 2],
            'default_hooks.reweighting.begin': 2,
            'default_hooks.two_stage.begin': STAGE_1,
            'default_hooks.two_stage.train_dataloader.batch_size': 32,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            **options,
        }
    )
    launch.set_dataloader_defaults(cfg)
    return cfg


def build_runner(cfg: Config) -> Runner:
    cfg = copy.deepcopy(cfg)
    # mmengine keeps loggers and hubs by this name for the whole process.
    build_runner.count += 1
    cfg.experiment_name = f'test_{build_runner.count}'
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    runner.logger.setLevel(logging.WARNING)
    return runner


build_runner.count = 0


def train(cfg: Config) -> Runner:
    runner = build_runner(cfg)
    runner.train()
    return runner


def run_two_ranks(function, *args):
    """Call a function in two processes, with the environment of torchrun."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    ranks = torch.multiprocessing.start_processes(
        _run_rank, (port, function, args), nprocs=2, join=False, start_method='forkserver'
    )
    try:
        while not ranks.join():
            pass
    finally:
        for process in ranks.processes:
            process.kill()


def _run_rank(rank, port, function, args):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        CUDA_VISIBLE_DEVICES='',
    )
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    function(*args)


def assert_same_state(one, other):
    """Bit-equal nested state."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_state(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_same_state(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
