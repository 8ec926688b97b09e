"""What tools share that change a trained model without training it."""

import argparse
import os
from collections.abc import Callable, Hashable

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, save_checkpoint
from mmpretrain.registry import DATASETS
from torch import nn

from ride_mm.utils.errors import UserError
from ride_mm.version import __version__

from . import launch
from .config import load_config

# Data sets hold some images twice: CIFAR in training and test set.
_DUPLICATES = 0.1


def load_runner(
    args: argparse.Namespace,
    check: Callable[[Config], None] | None = None,
    own_classifiers: bool = False,
) -> Runner:
    """Build the runner of a test and load the checkpoint.

    Args:
        args (Namespace): Of ``launch.common_arguments``, and ``checkpoint``.
        check (Callable, optional): Called with the config. Defaults to None.
        own_classifiers (bool): Whether to skip the classifier weights when
            loading. Defaults to False.

    Returns:
        Runner: Its ``model`` has the weights.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    if check is not None:
        check(cfg)
    launch.set_work_dir(cfg, args.work_dir, args.config)
    launch.check_checkpoint_path(args.checkpoint)
    cfg.resume, cfg.load_from = False, args.checkpoint
    if own_classifiers:
        hooks = dict(cfg.get('default_hooks') or {})
        cfg.default_hooks = dict(hooks, new_classifiers=dict(type='NewClassifiersHook'))
    launch.set_dataloader_defaults(cfg)
    launch.set_launcher(cfg, args.launcher)
    runner = launch.build_runner(cfg, launch.TestRunner)
    runner.load_or_resume()
    return runner


def check_val_set(cfg: Config) -> None:
    """Refuse to choose anything on images of the test or the training set.

    Raises:
        UserError: If more than a tenth of the validation images are among
            those, or there are no validation images.
    """
    if cfg.get('val_dataloader') is None:
        raise UserError('the config has no val_dataloader, whose images are needed for this choice')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    images = _images(cfg.val_dataloader)
    for name in ('test', 'train'):
        others = set(_images(cfg.get(f'{name}_dataloader')))
        known = sum(image in others for image in images)
        if known > _DUPLICATES * len(images):
            raise UserError(
                f"{known} of {len(images)} images of the config's "
                f'val_dataloader are in the {name} set, which must not be '
                'used for this choice: hold out some training images and set '
                "val_dataloader.dataset=dict(type='HoldOut', held_out=True, "
                'dataset=...), see docs/recipes.md'
            )


def _images(loader: dict | None) -> list[Hashable]:
    """What tells the images of a data loader's data set from others."""
    if loader is None:
        return []
    dataset = DATASETS.build(loader['dataset'])
    infos = map(dataset.get_data_info, range(len(dataset)))
    return [
        np.asarray(info['img']).tobytes() if 'img' in info else os.path.realpath(info['img_path'])
        for info in infos
    ]


def write_checkpoint(model: nn.Module, path: str, without: tuple[str, ...] = (), **meta) -> None:
    """Write a model.

    Args:
        model (nn.Module): The model.
        path (str): A new file.
        without (tuple[str]): What the names of weights begin with that are
            left out. Defaults to ().
        **meta: What else is to be kept in the checkpoint's ``meta``.
    """
    state = {
        key: value.cpu() for key, value in model.state_dict().items() if not key.startswith(without)
    }
    save_checkpoint(dict(meta=dict(ride_mm=__version__, **meta), state_dict=state), path)
    print(path)
