"""MMPretrain's inferencers: unreadable images, class names, and RIDE's compute.

In mmpretrain 1.2.0 and onedl-mmpretrain 1.3.6, an image that cannot be read
ends ``ImageClassificationInferencer`` and ``FeatureExtractor`` with the
results of all other images lost, and any number of ``classes`` is accepted. No
upstream issue is known. Delete this file, except
:func:`install_plain_inference`, once MMPretrain skips and reports such images,
and checks the number of names.

:func:`install_plain_inference` repairs nothing: it adapts the inferencer to
``RIDEClassifier``.
"""

import logging
from collections.abc import Iterator
from functools import wraps
from math import ceil

import torch
from mmcv.image import imread
from mmengine.dataset import default_collate
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from mmpretrain.apis.base import BaseInferencer
from rich.progress import track

from ride_mm.utils.errors import UserError, describe_unreadable


def _readable(
    inferencer: BaseInferencer, inputs: list, problems: list[str | None]
) -> Iterator[dict]:
    """Prepare the images that can be read.

    Args:
        inferencer (BaseInferencer): The inferencer with the pipeline.
        inputs (list): Images or their paths.
        problems (list): Gets an entry per image: None, or the reason why it
            cannot be read.

    Yields:
        dict: The output of the pipeline for an image.

    Raises:
        UserError: At the end, if no image could be read.
    """
    for image in inputs:
        try:
            img = imread(image)
            shape = img.shape[:2]
        except MemoryError:
            raise
        except Exception as error:
            if not isinstance(image, str):
                raise
            problems.append(describe_unreadable(image, error))
            print_log(f'{problems[-1]}. Its result is None.', 'current', logging.WARNING)
        else:
            problems.append(None)
            yield inferencer.pipeline(dict(img=img, img_shape=shape, ori_shape=shape))
    failed = [problem for problem in problems if problem is not None]
    if inputs and len(failed) == len(problems):
        more = len(failed) - 1
        raise UserError(failed[0] + (f', nor can {more} more images' if more else ''))


def _in_order(results: list, problems: list[str | None]) -> list:
    """Insert None for each image that could not be read."""
    remaining = iter(results)
    return [None if problem else next(remaining) for problem in problems]


def install_image_skipping() -> None:
    """Let MMPretrain's inferencers continue after an image that they cannot read.

    A warning names the image, and its result is None, so that results and
    images keep their order. If no image can be read, it is an error.
    """

    def classify(
        self, inputs, return_datasamples: bool = False, batch_size: int = 1, **kwargs
    ) -> list:
        _, forward, visualize, postprocess = self._dispatch_kwargs(**kwargs)
        inputs = self._inputs_to_list(inputs)
        problems: list[str | None] = []
        preds = []
        for chunk in track(
            self._get_chunk_data(_readable(self, inputs, problems), batch_size),
            'Inference',
            total=ceil(len(inputs) / batch_size),
        ):
            preds += self.forward(default_collate(chunk), **forward)
        read = [image for image, bad in zip(inputs, problems) if not bad]
        pictures = self.visualize(read, preds, **visualize)
        results = self.postprocess(preds, pictures, return_datasamples, **postprocess)
        return _in_order(results, problems)

    def extract(self, inputs, batch_size: int = 1, **kwargs) -> list:
        problems: list[str | None] = []
        images = _readable(self, self._inputs_to_list(inputs), problems)
        features = []
        for chunk in self._get_chunk_data(images, batch_size):
            features += self.forward(default_collate(chunk), **kwargs)
        return _in_order(features, problems)

    for kind, call in ((ImageClassificationInferencer, classify), (FeatureExtractor, extract)):
        call.__doc__ = kind.__call__.__doc__
        kind.__call__ = call


def install_class_names_check() -> None:
    """Make MMPretrain's inferencer require one name per class."""
    original = ImageClassificationInferencer.__init__

    @wraps(original)
    def __init__(self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        number = getattr(getattr(self.model, 'head', None), 'num_classes', None)
        names = self.classes
        if names is None or number is None:
            return
        if isinstance(names, str) or len(names) != number:
            found = f'the text {names!r}' if isinstance(names, str) else f'{len(names)} names'
            raise UserError(
                f'ImageClassificationInferencer: classes has {found}, but the '
                f'model has {number} classes: give one name per class, in the '
                'order of the labels'
            )

    ImageClassificationInferencer.__init__ = __init__


def install_plain_inference() -> None:
    """Let MMPretrain's inferencer run a network once per image.

    ``RIDEClassifier.test_step`` also counts multiply-accumulates, for metrics.
    The results get ``num_experts_used`` and, if the model gives sets,
    ``pred_set``: the names, or without names the numbers, of the labels.
    """
    original = ImageClassificationInferencer.forward

    @wraps(original)
    @torch.no_grad()
    def forward(self, inputs: dict) -> list:
        if hasattr(self.model, 'add_compute'):
            return BaseModel.test_step(self.model, inputs)
        return original(self, inputs)

    plain_postprocess = ImageClassificationInferencer.postprocess

    @wraps(plain_postprocess)
    def postprocess(self, preds: list, *args, **kwargs) -> list:
        results = plain_postprocess(self, preds, *args, **kwargs)
        for sample, result in zip(preds, results):
            if result is sample:  # return_datasamples=True
                continue
            if 'num_experts_used' in sample:
                result['num_experts_used'] = sample.num_experts_used
            if 'pred_set' in sample:
                labels = sample.pred_set.tolist()
                names = self.classes
                result['pred_set'] = labels if names is None else [names[i] for i in labels]
        return results

    ImageClassificationInferencer.forward = forward
    ImageClassificationInferencer.postprocess = postprocess
