import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.registry import MODELS

from ride_mm.compat.config_names import config_file
from ride_mm.utils.errors import UserError


def _describe(preprocessor) -> dict:
    """Describe how a data preprocessor transforms an image."""
    normalizes = preprocessor._enable_normalize
    return dict(
        mean=preprocessor.mean.flatten().tolist() if normalizes else None,
        std=preprocessor.std.flatten().tolist() if normalizes else None,
        to_rgb=preprocessor.to_rgb,
    )


def _read_model(path: str) -> dict:
    """The model of a config file, as a runner would build it."""
    cfg = Config.fromfile(path)
    preprocessor = cfg.get('data_preprocessor', {})
    return dict(dict(data_preprocessor=preprocessor), **cfg.model)


class Teacher:
    """A trained classifier that only predicts.

    It is not a module, so checkpoints, optimizers, initialization and
    distributed wrappers ignore it.

    Args:
        config (str | dict): Config file of the teacher, ``ride_mm::NAME.py``
            or its ``model``.
        checkpoint (str): Its weights.
        student (BaseClassifier): The model to train with it.

    Raises:
        UserError: If a file is missing, or the teacher's classes or input
            pixels differ from the student's.
    """

    def __init__(self, config: str | dict, checkpoint: str, student: BaseClassifier) -> None:
        if isinstance(config, str):
            config = config_file(config)
        for key, path in dict(config=config, checkpoint=checkpoint).items():
            if isinstance(path, str) and not (Path(path).is_file() or '://' in path):
                raise UserError(f'model.teacher.{key}: there is no file {path}')
        if isinstance(config, str):
            config = _read_model(config)
        # Who taught the teacher is of no concern.
        self.model = MODELS.build(
            {key: copy.deepcopy(value) for key, value in config.items() if key != 'teacher'}
        )
        self._check(student)
        load_checkpoint(self.model, checkpoint, map_location='cpu', strict=True)
        self.model.eval().requires_grad_(False)

    def _check(self, student: BaseClassifier) -> None:
        classes, expected = (model.head.num_classes for model in (self.model, student))
        if classes != expected:
            raise UserError(
                f'model.teacher has {classes} classes, but model.head.num_classes={expected}'
            )
        seen, expected = (_describe(model.data_preprocessor) for model in (self.model, student))
        if seen != expected:
            raise UserError(
                'model.teacher gets images from model.data_preprocessor, '
                f'{expected}, but was trained with {seen}'
            )

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of images, (N, C, H, W) to (N, K), in fp32 or more."""
        # Follows the student to its device; does nothing from then on.
        self.model.to(inputs.device)
        logits = self.model(inputs, mode='tensor')
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
