import functools
import gc
import importlib.util
import multiprocessing
import os
import sys
from pathlib import Path

import mmengine.config.config as mmengine_config
import pytest
import sklearn.datasets
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from sklearn.datasets import load_digits

import ride_mm  # noqa: F401  Registers every part.

ROOT = Path(__file__).resolve().parents[1]
# A process that a test starts is forked from one that has imported these and
# done nothing else: no thread of the tests can have left a lock behind.
multiprocessing.set_forkserver_preload(['ride_mm', 'matplotlib.pyplot'])


def load_tool(path):
    """The module of a script such as ``tools/train.py``."""
    spec = importlib.util.spec_from_file_location(path.replace('/', '_')[:-3], ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run the tests marked slow too')


def pytest_configure(config):
    if config.getoption('numprocesses', None):
        # Workers inherit it, and so do the processes that they start.
        os.environ.setdefault('OMP_NUM_THREADS', '1')


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.get_closest_marker('cuda') is None)
    if not config.getoption('--slow'):
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(pytest.mark.skip(reason='runs with --slow'))


def pytest_collection_finish():
    # MMEngine collects garbage for every dataset: what has been imported
    # is none.
    gc.collect()
    gc.freeze()


def run_process(stderr, function, *args):
    """Call a function in a process of its own, and return its exit code.

    Args:
        stderr (Path): The file to which the process writes its stderr.
        function (Callable): A function of a module, as it may be pickled.
    """
    context = multiprocessing.get_context('forkserver')
    process = context.Process(target=_call, args=(stderr, function, args))
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def _call(stderr, function, args):
    # Pytest has replaced both.
    file = open(stderr, 'w')
    os.dup2(file.fileno(), 2)
    sys.stderr = file
    function(*args)


@pytest.fixture(autouse=True, scope='session')
def plain_configs():
    """Configs are dumped as they are: yapf takes half of a tiny training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine_config, 'FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(autouse=True, scope='session')
def digits_read_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.datasets, 'load_digits', functools.cache(load_digits))
        yield


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')


@pytest.fixture(autouse=True)
def one_thread():
    # Tiny tensors: threads cost more than they bring.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch):
    # On a GPU, TF32 rounds products to 10 bits.
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.fixture
def no_init(monkeypatch):
    """Layers are not initialized, which takes most of the time for large networks."""
    monkeypatch.setattr(torch.nn.init, 'kaiming_uniform_', lambda tensor, *_, **__: tensor)


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def tiny_model() -> Config:
    """Three experts on ResNet-20, ten classes: milliseconds a step."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/ride_r32.py').model
    cfg.backbone.depth = 20
    cfg.neck.expert.depth = 20
    cfg.head.num_classes = 10
    cfg.head.router.topk = 5
    return cfg
