"""The official code: everything that knows it, and what makes it run today.

Nothing of it is copied. What its authors' libraries had and today's lack is
patched in the process that imports it, and every patch is listed.
"""

import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from ride_mm.engine.config import type_name
from ride_mm.utils.errors import UserError

_NEEDED = (
    'train.py',
    'parse_config.py',
    'model/model.py',
    'model/loss.py',
    'trainer/trainer.py',
    'data_loader/data_loaders.py',
    'configs',
)
# Their configs, by our network.
_CONFIGS = {
    'CIFARResNet-32': 'imbalance_cifar100',
    'ResNet10': 'imagenet_lt_resnet10',
    'ResNet-50': 'imagenet_lt_resnet50',
    'ResNeXt-50': 'imagenet_lt_resnext50',
}
# Their data loaders, by our dataset, and what they take from its config.
_LOADERS = {
    'CIFAR10LT': ('ImbalanceCIFAR10DataLoader', ()),
    'CIFAR100LT': ('ImbalanceCIFAR100DataLoader', ('imb_type', 'imb_factor')),
    'ImageNetLT': ('ImageNetLTDataLoader', ()),
    'INaturalist2018': ('iNaturalistDataLoader', ()),
}
_NEVER = 10**6


def check_clone(path: str) -> None:
    """Check that a folder is a clone of the official repository.

    Raises:
        UserError: If it is not.
    """
    for name in _NEEDED:
        if not os.path.exists(os.path.join(path, name)):
            raise UserError(
                f'--official {path}: this is no clone of '
                'github.com/frank-xwang/RIDE-LongTailRecognition, it has no '
                f'{name}.'
            )


def config_name(cfg: Config, router: bool = False) -> str:
    """Name the official config of the same network.

    Args:
        cfg (Config): Our config.
        router (bool): Whether to name that of the routed model. Defaults to
            False.

    Raises:
        UserError: If there is none.
    """
    backbone = cfg.model.backbone
    network = type_name(backbone)
    if 'depth' in backbone:
        network += f'-{backbone.depth}'
    if network not in _CONFIGS:
        raise UserError(
            f'--official: the official code has no {network}, expected one of {sorted(_CONFIGS)}.'
        )
    return f'config_{_CONFIGS[network]}_ride{"_ea" if router else ""}.json'


def full_width(cfg: Config) -> tuple[int, ...]:
    """Channels of an expert's stages that are not reduced: each stage of a
    ResNet has twice those of the one before."""
    expert = cfg.model.neck.expert
    return tuple(expert.in_channels * 2 ** (i + 1) for i in range(len(expert.out_channels)))


class Official:
    """The official code, imported into this process.

    Args:
        path (str): A clone of the repository.
        device (str): "cpu" or "cuda".
    """

    def __init__(self, path: str, device: str) -> None:
        self.device = device
        self.patches: dict[str, str] = {}
        self._patch_cuda()
        self._patch_where()
        self._patch_pandas()
        self._root = Path(path).resolve()
        sys.path.insert(0, str(self._root))
        self._train = importlib.import_module('train')

    @contextmanager
    def _in_clone(self) -> Iterator[None]:
        """It opens its own files relative to the clone."""
        before = os.getcwd()
        os.chdir(self._root)
        try:
            yield
        finally:
            os.chdir(before)

    # -------------------------------------------------------------- patches

    def _patch(self, owner: Any, name: str, value: Any, why: str) -> None:
        setattr(owner, name, value)
        label = getattr(owner, '__name__', type(owner).__name__)
        self.patches[f'{label}.{name}'] = why

    def _patch_cuda(self) -> None:
        if self.device == 'cpu':
            self._patch(
                torch.Tensor,
                'cuda',
                lambda tensor: tensor,
                'its loss asks for a GPU, whether there is one or not',
            )

    def _patch_where(self) -> None:
        where = torch.where
        mask = torch.ones(1, dtype=torch.uint8)
        try:
            where(mask, 1.0, 0.0)
        except RuntimeError:
            self._patch(
                torch,
                'where',
                lambda mask, *values: where(mask.bool(), *values),
                'its loss chooses by a uint8 mask, PyTorch wants bool',
            )

    def _patch_pandas(self) -> None:
        try:
            import pandas

            if int(pandas.__version__.split('.')[0]) < 3:
                return
            why = 'its running means write into copies since pandas 3'
        except ImportError:
            why = 'not installed; only its running means need it'
        module = types.ModuleType('pandas')
        sys.modules['pandas'] = module
        self._patch(module, 'DataFrame', _DataFrame, why)

    def _patch_integrity(self) -> None:
        from torchvision.datasets import cifar

        self._patch(
            cifar,
            'check_integrity',
            lambda path, md5: os.path.isfile(path),
            'check_integrity=False in our config: a re-packed copy',
        )

    # ------------------------------------------------------------- settings

    def _settings(self, cfg: Config, router: bool = False) -> dict:
        """Their config with the sizes of ours."""
        path = self._root / 'configs' / config_name(cfg, router)
        settings = json.loads(path.read_text())
        head = cfg.model.head
        settings['n_gpu'] = int(self.device == 'cuda')
        settings['arch']['args'].update(
            num_classes=head.num_classes,
            num_experts=cfg.model.num_experts,
            reduce_dimension=tuple(cfg.model.neck.expert.out_channels) != full_width(cfg),
            use_norm=type_name(head.classifier) == 'CosineClassifier',
        )
        if router:
            settings['arch']['args']['top_choices_num'] = head.router.topk
        return settings

    def loader(self, cfg: Config, **options) -> DataLoader:
        """Their data loader of our training set.

        Args:
            cfg (Config): Our config.
            **options: Options of the loader, such as ``num_workers``.

        Returns:
            DataLoader: The loader.

        Raises:
            UserError: If it has none for the dataset.
        """
        dataset = cfg.train_dataloader.dataset
        if type_name(dataset) not in _LOADERS:
            raise UserError(f'--official: the official code has no loader of {type_name(dataset)}')
        if dataset.get('check_integrity') is False:
            self._patch_integrity()
        name, keys = _LOADERS[type_name(dataset)]
        options.update((key, dataset[key]) for key in keys if key in dataset)
        data_root = os.path.abspath(dataset.get('data_root', ''))
        with self._in_clone():
            return getattr(self._train.module_data, name)(
                data_root, batch_size=cfg.train_dataloader.batch_size, **options
            )

    # ---------------------------------------------------------------- model

    def routed_model(self, cfg: Config) -> nn.Module:
        """Their routed model, in evaluation mode."""
        arch = self._settings(cfg, router=True)['arch']
        model = getattr(self._train.module_arch, arch['type'])(**arch['args'])
        return model.to(self.device).eval()

    def plan_routing(
        self, model: nn.Module, decide: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> None:
        """Replace the decisions of a routed model, not what they cost.

        Args:
            model (nn.Module): From :meth:`routed_model`.
            decide (Callable): ``decide(index, logits)``, whose result is
                taken instead of the logits of router ``index``.
        """
        predict = model.backbone.pred_expert_help

        def pred_expert_help(inputs, index):
            logits = predict(inputs, index)
            return decide(index, logits.view(-1)).view_as(logits)

        self._patch(
            model.backbone,
            'pred_expert_help',
            pred_expert_help,
            'sends the same share of images on as ours does',
        )

    # ------------------------------------------------------------- training

    def train(
        self,
        cfg: Config,
        variant: str,
        work_dir: str,
        before: Callable[[nn.Module], None],
        step: Callable[[int], None],
    ) -> None:
        """Run their training, which has no end.

        Args:
            cfg (Config): Our config.
            variant (str): 'fp32', which is as published, 'amp', or either
                with '-compiled'.
            work_dir (str): Folder for what it writes.
            before (Callable): Called with the model before the first step.
            step (Callable): Called with the number of images after each.
        """
        precision, _, compiled = variant.partition('-')
        settings = self._settings(cfg)
        build = getattr(self._train.module_arch, settings['arch']['type'])
        loader = self.loader(cfg, num_workers=cfg.train_dataloader.num_workers)

        def build_model(**args):
            model = build(**args)
            if compiled:
                model.compile(dynamic=False)
            before(model)
            return model

        self._train.module_arch.BenchmarkModel = build_model
        self._train.module_data.BenchmarkLoader = lambda: _PacedLoader(loader, step)
        settings['arch']['type'] = 'BenchmarkModel'
        settings['data_loader'] = dict(type='BenchmarkLoader', args={})
        settings['trainer'].update(
            epochs=_NEVER, save_period=_NEVER, monitor='off', save_dir=work_dir
        )
        if precision == 'amp':
            self._enable_amp()
        with self._in_clone():
            self._train.main(self._train.ConfigParser(settings, run_id='run'))

    def _enable_amp(self) -> None:
        trainer = importlib.import_module('trainer.trainer')
        dtype = torch.float16 if self.device == 'cuda' else torch.bfloat16
        self._patch(
            trainer,
            'autocast',
            lambda: torch.autocast(self.device, dtype),
            'mixed precision was asked for',
        )
        # It scales the loss where this is set.
        trainer.use_fp16 = self.device == 'cuda'


class _PacedLoader:
    """A data loader that tells when the step on a batch is over.

    There is no validation set: validation is not measured.
    """

    def __init__(self, loader: Any, step: Callable[[int], None]) -> None:
        self._loader = loader
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator:
        for images, labels in self._loader:
            yield images, labels
            self._step(len(labels))

    def split_validation(self) -> None:
        return None


class _DataFrame:
    """As much of pandas as running means need."""

    def __init__(self, index, columns) -> None:
        self.columns = columns
        self._table = {name: _Column.fromkeys(index, 0) for name in columns}

    def __getitem__(self, name: str) -> '_Column':
        return self._table[name]

    __getattr__ = __getitem__


class _Column(dict):
    def __setitem__(self, key, value) -> None:
        for name in self if isinstance(key, slice) else (key,):
            super().__setitem__(name, value)

    @property
    def values(self) -> '_Column':
        return self
