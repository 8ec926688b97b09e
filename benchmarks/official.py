"""The official code: everything that knows it, and what makes it run today.

Nothing of it is copied. It is patched in the process that imports it where
current versions of its libraries lack something, and every patch is listed.
"""

import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from harness import endless, full_width
from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from ride_mm.engine.config import type_name
from ride_mm.utils.errors import UserError

# Their configs, by our network.
_CONFIGS = {
    'CIFARResNet-32': 'imbalance_cifar100',
    'ResNet10': 'imagenet_lt_resnet10',
    'ResNet-50': 'imagenet_lt_resnet50',
    'ResNeXt-50': 'imagenet_lt_resnext50',
}
# Their data loaders, by our dataset, and the options that both have.
_LOADERS = {
    'CIFAR10LT': ('ImbalanceCIFAR10DataLoader', ()),
    'CIFAR100LT': ('ImbalanceCIFAR100DataLoader', ('imb_type', 'imb_factor')),
    'ImageNetLT': ('ImageNetLTDataLoader', ()),
    'INaturalist2018': ('iNaturalistDataLoader', ()),
}
_NEVER = 10**6


def config_path(clone: str, cfg: Config, router: bool = False) -> Path:
    """Find the official config of the same network.

    Args:
        clone (str): A clone of the official repository.
        cfg (Config): Our config.
        router (bool): Whether to find that of the routed model. Defaults to
            False.

    Raises:
        UserError: If the folder is no such clone, or there is no such config.
    """
    for name in ('train.py', 'configs', 'model/model.py'):
        if not Path(clone, name).exists():
            raise UserError(
                f'--official {clone}: this is no clone of '
                f'github.com/frank-xwang/RIDE-LongTailRecognition, it has no {name}.'
            )
    backbone = cfg.model.backbone
    network = type_name(backbone)
    if 'depth' in backbone:
        network += f'-{backbone.depth}'
    if network not in _CONFIGS:
        raise UserError(
            f'--official: the official code has no {network}, expected one of {sorted(_CONFIGS)}.'
        )
    ending = '_ea' if router else ''
    return Path(clone, 'configs', f'config_{_CONFIGS[network]}_ride{ending}.json')


def as_steps(train: Callable[[Callable[[int], None]], None]) -> Iterator[int]:
    """Turn a training that reports its steps into an iterator of steps.

    The training runs in a thread, which waits between the steps.

    Args:
        train (Callable): ``train(report)`` calls ``report(images)`` after each
            step.

    Yields:
        int: The number of images of the step.
    """
    done: SimpleQueue = SimpleQueue()
    next_step: SimpleQueue = SimpleQueue()

    def report(images: int) -> None:
        done.put(images)
        next_step.get()

    def run() -> None:
        try:
            train(report)
        except BaseException as error:
            done.put(error)

    Thread(target=run, daemon=True).start()
    while True:
        images = done.get()
        if isinstance(images, BaseException):
            raise images
        yield images
        next_step.put(None)


class Official:
    """The official code, imported into this process.

    Args:
        clone (str): A clone of the repository.
        cfg (Config): Our config, whose network and data set it takes.
        device (str): 'cpu' or 'cuda'.

    Attributes:
        patches (dict[str, str]): What was patched, and why.

    Raises:
        UserError: See :func:`config_path`.
    """

    def __init__(self, clone: str, cfg: Config, device: str) -> None:
        config_path(clone, cfg)
        self.patches: dict[str, str] = {}
        self._root, self._cfg, self._device = Path(clone).resolve(), cfg, device
        if device == 'cpu':
            self._patch(
                torch.Tensor, 'cuda', lambda tensor: tensor, 'the loss always asks for a GPU'
            )
        pandas = sys.modules['pandas'] = types.ModuleType('pandas')
        self._patch(
            pandas, 'DataFrame', _Ignored, 'its running means fail with pandas 3; none are kept'
        )
        sys.path.insert(0, str(self._root))
        self._train = importlib.import_module('train')

    def _patch(self, owner: Any, name: str, value: Any, why: str) -> None:
        setattr(owner, name, value)
        self.patches[f'{getattr(owner, "__name__", type(owner).__name__)}.{name}'] = why

    @contextmanager
    def _in_clone(self) -> Iterator[None]:
        """It opens its own files relative to the clone."""
        before = os.getcwd()
        os.chdir(self._root)
        try:
            yield
        finally:
            os.chdir(before)

    def _settings(self, router: bool = False) -> dict:
        """Their config with the sizes of ours."""
        settings = json.loads(config_path(str(self._root), self._cfg, router).read_text())
        model = self._cfg.model
        settings['n_gpu'] = int(self._device == 'cuda')
        settings['arch']['args'].update(
            num_classes=model.head.num_classes,
            num_experts=model.num_experts,
            reduce_dimension=tuple(model.neck.expert.out_channels) != full_width(self._cfg),
            use_norm=type_name(model.head.classifier) == 'CosineClassifier',
        )
        if router:
            settings['arch']['args']['top_choices_num'] = model.head.router.topk
        return settings

    # ----------------------------------------------------------------- data

    def _loader(self, workers: int) -> DataLoader:
        """Their data loader of our training set.

        Raises:
            UserError: If it has none for the dataset.
        """
        dataset = self._cfg.train_dataloader.dataset
        if type_name(dataset) not in _LOADERS:
            raise UserError(f'--official: the official code has no loader of {type_name(dataset)}')
        if dataset.get('check_integrity') is False:
            from torchvision.datasets import cifar

            self._patch(
                cifar,
                'check_integrity',
                lambda path, md5: os.path.isfile(path),
                'check_integrity=False in our config: a re-packed copy',
            )
        name, keys = _LOADERS[type_name(dataset)]
        options = {key: dataset[key] for key in keys if key in dataset}
        data_root = os.path.abspath(dataset.get('data_root', ''))
        with self._in_clone():
            return getattr(self._train.module_data, name)(
                data_root,
                batch_size=self._cfg.train_dataloader.batch_size,
                num_workers=workers,
                **options,
            )

    def batches(self, part: str, workers: int) -> Iterator[int]:
        """Load batches without an end, and give the number of images of each.

        Args:
            part (str): 'train' or 'val'.
            workers (int): The number of workers of the loader.

        Raises:
            UserError: If it has no loader for the dataset.
        """
        loader = self._loader(workers)
        if part == 'val':
            loader = DataLoader(loader.val_dataset, **loader.init_kwargs)
        return endless(loader, lambda batch: len(batch[1]))

    # ------------------------------------------------------------ inference

    def routed_model(self, decide: Callable[[int, torch.Tensor], torch.Tensor]) -> nn.Module:
        """Build their routed model, in evaluation mode.

        Args:
            decide (Callable): ``decide(index, logits)``, whose result replaces
                the logits of router ``index``, at their cost.
        """
        arch = self._settings(router=True)['arch']
        model = getattr(self._train.module_arch, arch['type'])(**arch['args'])
        predict = model.backbone.pred_expert_help

        def pred_expert_help(inputs, index):
            logits = predict(inputs, index)
            return decide(index, logits.view(-1)).view_as(logits)

        self._patch(
            model.backbone,
            'pred_expert_help',
            pred_expert_help,
            'sends on the same share of images as ours',
        )
        return model.to(self._device).eval()

    # ------------------------------------------------------------- training

    def steps(self, variant: str, work_dir: str, facts: dict) -> Iterator[int]:
        """Train with their trainer, one step at a time.

        Args:
            variant (str): 'fp32', which is as published, 'amp', or either with
                '-compiled'.
            work_dir (str): Folder for what it writes.
            facts (dict): Receives the number of ``parameters``.

        Returns:
            Iterator[int]: The number of images of each step.
        """
        precision, _, compiled = variant.partition('-')
        settings, modules = self._settings(), self._train
        build = getattr(modules.module_arch, settings['arch']['type'])
        loader = self._loader(self._cfg.train_dataloader.num_workers)

        def build_model(**options):
            model = build(**options)
            facts['parameters'] = sum(parameter.numel() for parameter in model.parameters())
            if compiled:
                model.compile(dynamic=False)
            return model

        def train(report: Callable[[int], None]) -> None:
            class ReportingLoader(type(loader)):
                def __iter__(self):
                    for images, labels in super().__iter__():
                        yield images, labels
                        report(len(labels))

                def split_validation(self):
                    return None  # validation is not measured

            loader.__class__ = ReportingLoader
            with self._in_clone():
                config = modules.ConfigParser(settings, run_id='run')
            modules.main(config)

        modules.module_arch.BenchmarkModel = build_model
        modules.module_data.BenchmarkLoader = lambda: loader
        settings['arch']['type'] = 'BenchmarkModel'
        settings['data_loader'] = dict(type='BenchmarkLoader')
        settings['trainer'].update(
            epochs=_NEVER, save_period=_NEVER, monitor='off', save_dir=work_dir
        )
        if precision == 'amp':
            self._enable_amp()
        return as_steps(train)

    def _enable_amp(self) -> None:
        trainer = importlib.import_module('trainer.trainer')
        dtype = torch.float16 if self._device == 'cuda' else torch.bfloat16
        self._patch(
            trainer,
            'autocast',
            lambda: torch.autocast(self._device, dtype),
            'mixed precision was asked for',
        )
        # It scales the loss if this is set.
        trainer.use_fp16 = self._device == 'cuda'


class _Ignored:
    """Stands in for a pandas.DataFrame, and forgets everything."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def _self(self, *args) -> '_Ignored':
        return self

    __call__ = __getattr__ = __getitem__ = __iadd__ = __truediv__ = _self

    def __setitem__(self, key, value) -> None:
        pass

    def __iter__(self) -> Iterator:
        return iter(())
