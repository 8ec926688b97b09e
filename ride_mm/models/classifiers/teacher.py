import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.registry import MODELS

from ride_mm.utils.config_names import config_file
from ride_mm.utils.errors import UserError


def _describe(preprocessor) -> dict:
    """How a data preprocessor transforms an image."""
    normalizes = preprocessor._enable_normalize
    return dict(
        mean=preprocessor.mean.flatten().tolist() if normalizes else None,
        std=preprocessor.std.flatten().tolist() if normalizes else None,
        to_rgb=preprocessor.to_rgb,
    )


def _read_model(path: str) -> dict:
    """The model config of a config file, with its data preprocessor."""
    cfg = Config.fromfile(path)
    preprocessor = cfg.get('data_preprocessor', {})
    return {'data_preprocessor': preprocessor, **cfg.model}


class Teacher:
    """A trained classifier whose predictions a student learns from.

    It is not a module, so checkpoints, optimizers, initialization and
    distributed wrappers ignore it. It is loaded on first use, since testing
    does not need it.

    Args:
        config (str | dict): Config file of the teacher, a path or
            ``ride_mm::NAME.py``, or the model config in it: any classifier of
            the same classes.
        checkpoint (str): Checkpoint of the teacher, a path or URL.
        loss (dict): Config of the distillation loss. Defaults to
            ``dict(type='DistillationLoss')``.
        multiply_losses (bool): Whether to multiply all losses by the number
            of experts, as the official code does for distillation. Defaults
            to False.
    """

    def __init__(
        self,
        config: str | dict,
        checkpoint: str,
        loss: dict = dict(type='DistillationLoss'),
        multiply_losses: bool = False,
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.loss = MODELS.build(loss)
        self.multiply_losses = multiply_losses
        self.model: BaseClassifier | None = None

    @torch.no_grad()
    def logits(self, inputs: torch.Tensor, student: BaseClassifier) -> torch.Tensor:
        """The teacher's logits.

        Args:
            inputs (torch.Tensor): Images, (N, C, H, W).
            student (BaseClassifier): The model in training.

        Returns:
            torch.Tensor: Logits in fp32 or more, (N, K).

        Raises:
            UserError: If a file is missing, or the teacher's classes or input
                pixels differ from the student's.
        """
        if self.model is None:
            self.model = self._load(student)
        # Does nothing once the teacher is on the student's device.
        self.model.to(inputs.device)
        logits = self.model(inputs, mode='tensor')
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _load(self, student: BaseClassifier) -> BaseClassifier:
        config = config_file(self.config) if isinstance(self.config, str) else self.config
        for key, path in dict(config=config, checkpoint=self.checkpoint).items():
            if isinstance(path, str) and not (Path(path).is_file() or '://' in path):
                raise UserError(f'model.teacher.{key}: there is no file {path}')
        if isinstance(config, str):
            config = _read_model(config)
        # The teacher does not need a teacher of its own.
        model = MODELS.build(
            {key: copy.deepcopy(value) for key, value in config.items() if key != 'teacher'}
        )
        _check_alike(model, student)
        load_checkpoint(model, self.checkpoint, map_location='cpu', strict=True)
        return model.eval().requires_grad_(False)


def _check_alike(teacher: BaseClassifier, student: BaseClassifier) -> None:
    classes, expected = (model.head.num_classes for model in (teacher, student))
    if classes != expected:
        raise UserError(
            f'model.teacher has {classes} classes, but model.head.num_classes={expected}'
        )
    seen, expected = (_describe(model.data_preprocessor) for model in (teacher, student))
    if seen != expected:
        raise UserError(
            f'model.teacher gets images from model.data_preprocessor, {expected}, but was trained '
            f'with {seen}'
        )
