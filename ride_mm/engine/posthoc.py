"""Shared code of the tools that change a trained model without training it."""

import argparse
import copy
import os
from collections.abc import Callable, Hashable

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, save_checkpoint
from mmpretrain.registry import DATASETS
from torch import nn
from torch.utils.data import DataLoader

from ride_mm.utils.errors import UserError
from ride_mm.version import __version__

from . import launch
from .config import innermost_dataset

# Share of images that two sets may have in common: CIFAR's training and test
# sets contain duplicates.
_DUPLICATES = 0.1


def checkpoint_parser(
    description: str | None, example: str, out: str = 'checkpoint to write (.pth)'
) -> argparse.ArgumentParser:
    """A parser of the config, the checkpoint, and the file to write."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[launch.common_arguments()],
    )
    parser.add_argument('checkpoint', help='the checkpoint')
    parser.add_argument('--out', metavar='FILE', required=True, help=out)
    return parser


def load_runner(
    args: argparse.Namespace,
    check: Callable[[Config], None] | None = None,
    own_classifiers: bool = False,
) -> Runner:
    """Build the runner of a test and load the checkpoint.

    Args:
        args (Namespace): Those of ``launch.common_arguments``, and
            ``checkpoint``.
        check (Callable, optional): Called with the config. Defaults to None.
        own_classifiers (bool): Whether to skip the classifier weights when
            loading. Defaults to False.

    Returns:
        Runner: The runner; its ``model`` has the weights.
    """
    cfg = launch.load_test(args)
    if check is not None:
        check(cfg)
    if own_classifiers:
        hooks = dict(cfg.get('default_hooks') or {})
        cfg.default_hooks = dict(hooks, new_classifiers=dict(type='NewClassifiersHook'))
    launch.set_dataloader_defaults(cfg)
    launch.set_launcher(cfg, args.launcher)
    runner = launch.build_runner(cfg, launch.TestRunner, args.verbose)
    runner.load_or_resume()
    return runner


def build_test_loader(runner: Runner, dataset: dict, files: bool = False) -> DataLoader:
    """Build a loader of other images with the settings and the pipeline of the test.

    Args:
        runner (Runner): The runner of a test.
        dataset (dict): Config of the dataset of these images.
        files (bool): Whether its images are files even if those of the test are
            not. Defaults to False.

    Returns:
        DataLoader: The loader.
    """
    cfg = copy.deepcopy(runner.cfg.test_dataloader)
    pipeline = innermost_dataset(cfg)['pipeline']
    load = dict(type='LoadImageFromFile')
    if files and not any(transform['type'] == load['type'] for transform in pipeline):
        pipeline = [load, *pipeline]
    cfg.dataset = copy.deepcopy(dataset)
    innermost_dataset(cfg)['pipeline'] = pipeline
    return runner.build_dataloader(cfg)


def check_val_set(cfg: Config) -> None:
    """Check that the validation set is separate from the test and training sets.

    Raises:
        UserError: If more than a tenth of the validation images are in one of
            these sets, or there are no validation images.
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
                f"{known} of {len(images)} images of the config's val_dataloader are in the {name} "
                'set, which must not be used for this choice: hold out some training images and '
                "set val_dataloader.dataset=dict(type='HoldOut', held_out=True, dataset=...), see "
                'docs/recipes.md'
            )


def use_val_set(cfg: Config) -> None:
    """Make the validation set of a config its test set.

    Args:
        cfg (Config): The config, changed in place.

    Raises:
        UserError: As :func:`check_val_set`.
    """
    check_val_set(cfg)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator


def _images(loader: dict | None) -> list[Hashable]:
    """A key for each image of a data loader."""
    if loader is None:
        return []
    dataset = DATASETS.build(loader['dataset'])
    infos = map(dataset.get_data_info, range(len(dataset)))
    return [
        np.asarray(info['img']).tobytes() if 'img' in info else os.path.realpath(info['img_path'])
        for info in infos
    ]


def write_checkpoint(model: nn.Module, path: str, without: tuple[str, ...] = (), **meta) -> None:
    """Write the weights of a model, and print the path.

    Args:
        model (nn.Module): The model.
        path (str): A new file.
        without (tuple[str]): Name prefixes of weights to leave out. Defaults to
            ().
        **meta: Additional entries of the checkpoint's ``meta``.
    """
    state = {
        key: value.cpu() for key, value in model.state_dict().items() if not key.startswith(without)
    }
    save_checkpoint(dict(meta=dict(ride_mm=__version__, **meta), state_dict=state), path)
    print(path)
