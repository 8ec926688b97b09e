import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence, Sized
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, cast

import mmengine.dist as dist
import numpy as np
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmpretrain.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader, Dataset, Sampler

from ride_mm.datasets.augmentation_seeds import Draw, SeededDataset
from ride_mm.datasets.trunk_maps import MapFiles, TrunkMapsDataset
from ride_mm.utils.errors import UserError, name_some

from .class_counts_hook import unwrapped
from .router_cache_hook import RouterInputsDataset

_GIB = 2**30


@HOOKS.register_module()
class TrunkCacheHook(Hook):
    """Runs a frozen trunk only once over augmented views of the training images.

    Before the first epoch, the trunk's last output for some views of each
    image, augmented as configured, is written to files, in half precision.
    The epochs then train tails, heads and router on these maps. The files
    belong to the weights of the trunk, the images and the pipeline: runs with
    other seeds or heads share them, and an interrupted extraction goes on.

    Args:
        views (int): Views of each image. Defaults to 4.
        folder (str): Folder of the files. Defaults to "work_dirs/trunk_maps".
        limit (float): Largest size of a run's files in GiB. Defaults to 20.

    Raises:
        UserError: If an option is out of range.
    """

    # After TwoStageHook, before RouterCacheHook.
    priority = 35

    def __init__(
        self, views: int = 4, folder: str = 'work_dirs/trunk_maps', limit: float = 20.0
    ) -> None:
        if views < 1:
            raise UserError(f'TrunkCacheHook.views={views} must be at least 1')
        if limit <= 0:
            raise UserError(f'TrunkCacheHook.limit={limit} must be above 0')
        self.views = views
        self.folder = Path(folder)
        self.limit = limit

    def before_train_epoch(self, runner: Runner) -> None:
        """Replace the images by maps."""
        loader = runner.train_loop.dataloader
        dataset = loader.dataset
        if isinstance(dataset, SeededDataset):
            dataset = dataset.dataset
        if isinstance(dataset, RouterInputsDataset):
            return
        if not isinstance(dataset, TrunkMapsDataset):
            dataset = TrunkMapsDataset(dataset, self._files(runner, loader))
            runner.train_loop.dataloader = DataLoader(
                dataset,
                batch_size=loader.batch_size,
                sampler=loader.sampler,
                drop_last=loader.drop_last,
                collate_fn=lambda batch: batch,
            )
        dataset.epoch = runner.epoch

    def _files(self, runner: Runner, loader: DataLoader) -> MapFiles:
        """The maps of a loader's images, extracted where they are missing."""
        model = unwrapped(runner)
        model.train()  # the loop does this only later
        _check(runner, model)
        key = _key(runner, model, loader.dataset)
        files = MapFiles(self.folder / key, self.views, len(cast(Sized, loader.dataset)))
        missing = files.missing()
        if missing:
            self._extract(runner, model, loader, files, missing)
        dist.barrier()
        return files

    def _extract(
        self,
        runner: Runner,
        model: Any,
        loader: DataLoader,
        files: MapFiles,
        missing: list[tuple[int, range]],
    ) -> None:
        """Write missing files; the processes take them in turn."""
        own = missing[dist.get_rank() :: dist.get_world_size()]
        progress = ProgressBar(len(own)) if dist.is_main_process() else None
        checked = False
        for (view, images), batches in zip(own, _batches(loader, own)):
            maps = np.concatenate([_maps(runner, model, batch) for batch in batches])
            if not checked:
                self._check_size(runner, maps.nbytes // len(maps), files, missing)
                checked = True
            files.write(view, images, maps)
            if progress:
                progress.update()

    def _check_size(
        self, runner: Runner, each: int, files: MapFiles, missing: list[tuple[int, range]]
    ) -> None:
        """Say how large the files will be; refuse what does not fit.

        Raises:
            UserError: If they are larger than the limit or the free space.
        """
        size = each * self.views * files.num_images
        needed = each * sum(len(images) for _, images in missing)
        files.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(files.folder).free
        runner.logger.info(
            f'Keeping the maps of {self.views} views of {files.num_images} images in '
            f'{files.folder}: {size / _GIB:.2f} GiB.'
        )
        for available, name in ((self.limit * _GIB, 'TrunkCacheHook.limit'), (free, 'free space')):
            if (size if name != 'free space' else needed) > available:
                raise UserError(
                    f'The maps of {self.views} views of {files.num_images} images take '
                    f'{size / _GIB:.2f} GiB, more than the {name} of {available / _GIB:.2f} GiB: '
                    'use fewer views, smaller images or a later cut of the network'
                )


def _check(runner: Runner, model: Any) -> None:
    """Refuse what cannot be trained on kept maps."""
    trainable = [name for name, value in model.backbone.named_parameters() if value.requires_grad]
    changing = [
        name
        for name, module in model.backbone.named_modules()
        if module.training and isinstance(module, (_BatchNorm, _DropoutNd, DropPath))
    ]
    recipes = any(type(hook).__name__ == 'SwitchRecipeHook' for hook in runner.hooks)
    two_stage = runner.cfg.get('default_hooks', {}).get('two_stage') or {}
    for found, problem in (
        (trainable, f'model.backbone trains {name_some(trainable)}: set model.freeze_trunk=True'),
        (changing, f'{name_some(changing)} of model.backbone changes in training: freeze it'),
        (model.teacher, 'model.teacher needs the images'),
        (model.data_preprocessor.batch_augments, 'model.train_cfg.augments mixes images'),
        (recipes, 'SwitchRecipeHook changes the images'),
        (
            'dataset' in (two_stage.get('train_dataloader') or {}),
            'default_hooks.two_stage.train_dataloader.dataset has other images',
        ),
    ):
        if found:
            raise UserError(f'TrunkCacheHook needs a frozen trunk and the same images: {problem}')


def _key(runner: Runner, model: Any, dataset: Any) -> str:
    """Digest of all that the maps depend on."""
    cfg = runner.cfg
    digest = hashlib.sha256()
    texts = [
        cfg.model.backbone,
        cfg.model.get('data_preprocessor', cfg.get('data_preprocessor')),
        {key: value for key, value in cfg.train_dataloader.dataset.items() if key != 'data_root'},
        cfg.train_dataloader.get('collate_fn'),
        type(runner.optim_wrapper).__name__,
    ]
    digest.update(repr(texts).encode())
    for name, value in model.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    for content in _images(dataset):
        digest.update(content)
    return digest.hexdigest()[:16]


def _images(dataset: Any) -> Iterator[bytes]:
    """For each image its file, with size and time of change, or its pixels."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if 'img_path' in info:
            stat = os.stat(info['img_path'])
            yield f'{info["img_path"]} {stat.st_size} {stat.st_mtime_ns}\n'.encode()
        else:
            yield np.ascontiguousarray(info['img']).tobytes()


def _batches(loader: DataLoader, chunks: Sequence[tuple[int, range]]) -> Iterator[list[dict]]:
    """The augmented images of each chunk, in batches."""
    size = loader.batch_size or 1

    def draws() -> Iterator[list[Draw]]:
        for view, images in chunks:
            seeds = np.random.default_rng((view, images[0])).integers(2**32, size=len(images))
            drawn = list(map(Draw, images, seeds.tolist()))
            yield from (drawn[start : start + size] for start in range(0, len(drawn), size))

    batches = iter(
        DataLoader(
            cast(Dataset, SeededDataset(loader.dataset)),
            batch_sampler=cast(Sampler, draws()),
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )
    )
    for _, images in chunks:
        yield list(islice(batches, ceil(len(images) / size)))


def _maps(runner: Runner, model: Any, batch: dict) -> np.ndarray:
    """The trunk's last output for a batch, in half precision."""
    inputs = model.data_preprocessor(batch, training=True)['inputs']
    with torch.no_grad(), runner.optim_wrapper.optim_context(model):
        maps = model.backbone(inputs)[-1].half()
    if not maps.isfinite().all():
        raise UserError(
            'TrunkCacheHook: the output of the trunk exceeds 65504, the largest number in half '
            'precision: train without this hook'
        )
    return maps.cpu().numpy()
