"""What the benchmarks make of a config."""
from typing import List, Optional, Tuple

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from ride_mm.analysis import image_size
from ride_mm.datasets.long_tail import long_tail_profile
from ride_mm.engine import launch
from ride_mm.engine.config import find_hook, is_ride, type_name
from ride_mm.engine.schedule import load_training
from ride_mm.utils.errors import UserError

VARIANTS = ('fp32', 'fp32-compiled', 'amp', 'amp-compiled')
# epochs that no benchmark comes to the end of
_ENDLESS = 10**6
_POOL = 512


def load(path: str, options: dict, stage: Optional[str] = None) -> Config:
    """Read a config of RIDE.

    Args:
        path (str): The config file.
        options (dict): ``--cfg-options``.
        stage (str, optional): 'experts' or 'router', to train it alone.
            Defaults to None, which means both.

    Returns:
        Config: The config; its default scope is in force.

    Raises:
        UserError: If the model is another one, or has no such stage.
    """
    cfg = load_training(path, options, stage=stage)
    if not is_ride(cfg):
        raise UserError(f'{path}: the benchmarks are for model.type='
                        f'"RIDEClassifier", found '
                        f'"{type_name(cfg.get("model"))}".')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def set_variant(cfg: Config, variant: str) -> None:
    """Set precision and compilation, as ``--amp`` and ``compile=True`` do.

    Args:
        cfg (Config): The config, changed in place.
        variant (str): One of ``VARIANTS``.
    """
    precision, _, compiled = variant.partition('-')
    cfg.model.compile = bool(compiled) and (cfg.model.get('compile') or True)
    if precision == 'amp':
        launch.enable_amp(cfg)
    else:
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)


def set_endless(cfg: Config, work_dir: str) -> None:
    """Train stage 1 for ever, with no validation and no checkpoint.

    Args:
        cfg (Config): The config, changed in place.
        work_dir (str): Folder for the log.
    """
    cfg.work_dir = work_dir
    cfg.load_from, cfg.resume = None, False
    cfg.train_cfg.max_epochs = _ENDLESS
    two_stage = find_hook(cfg, 'TwoStageHook')
    if two_stage is not None:
        two_stage.begin = _ENDLESS - 1
    cfg.default_hooks.checkpoint = None
    launch.disable_validation(cfg)
    launch.set_dataloader_defaults(cfg)
    launch.set_launcher(cfg, 'none')


def set_single(cfg: Config) -> None:
    """Make of RIDE the network that it is compared with.

    One expert of full width, a linear classifier and cross entropy.

    Args:
        cfg (Config): The config, changed in place.
    """
    neck, head = cfg.model.neck, cfg.model.head
    cfg.model.num_experts = 1
    neck.expert.out_channels = full_width(cfg)
    head.in_channels = full_width(cfg)[-1]
    head.classifier = ConfigDict(type='LinearClassifier')
    head.loss = ConfigDict(type='CrossEntropyLoss')
    head.diversity = head.router = cfg.model.test_cfg = None
    cfg.default_hooks.two_stage = None


def full_width(cfg: Config) -> Tuple[int, ...]:
    """Channels of an expert's stages that are not reduced: each stage of a
    ResNet has twice those of the one before."""
    expert = cfg.model.neck.expert
    return tuple(expert.in_channels * 2**(i + 1)
                 for i in range(len(expert.out_channels)))


def set_synthetic(cfg: Config) -> None:
    """Train on generated images instead of the data set.

    They come as the pipeline would give them, so that nothing is augmented.

    Args:
        cfg (Config): The config, changed in place.
    """
    loader = cfg.train_dataloader
    packed = type_name(loader.get('collate_fn')) != 'collate_batch'
    loader.dataset = ConfigDict(
        type='SyntheticImages',
        size=image_size(cfg),
        num_classes=cfg.model.head.num_classes,
        pipeline=[ConfigDict(type='PackInputs')] if packed else [])


@DATASETS.register_module()
class SyntheticImages(BaseDataset):
    """Images of noise, in memory.

    Args:
        size (tuple[int, int]): Rows and columns.
        num_classes (int): Number of classes K.
        num_images (int): Images in an epoch. Defaults to 12800.
        **kwargs: Other options of :class:`mmpretrain.datasets.BaseDataset`.
    """

    def __init__(self,
                 size: Tuple[int, int],
                 num_classes: int,
                 num_images: int = 12800,
                 **kwargs) -> None:
        self.size = size
        self.num_classes = num_classes
        self.num_images = num_images
        super().__init__(ann_file='', serialize_data=False, **kwargs)
        self._metainfo['class_counts'] = long_tail_profile(
            num_classes, 500, 'exp', 0.01)

    def load_data_list(self) -> List[dict]:
        """A few hundred images, over and over."""
        rng = np.random.default_rng(0)
        pool = rng.integers(256, size=(_POOL, *self.size, 3), dtype=np.uint8)
        return [
            dict(img=pool[i % _POOL], gt_label=i % self.num_classes)
            for i in range(self.num_images)
        ]
