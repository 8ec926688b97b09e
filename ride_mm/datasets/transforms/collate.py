import numpy as np
import torch
from mmengine.registry import FUNCTIONS

from ride_mm.structures import BatchDataSample
from ride_mm.utils.errors import UserError

from .crop_flip_rotate import crop_flip_rotate


@FUNCTIONS.register_module()
def collate_batch(samples: list[dict]) -> dict[str, torch.Tensor | BatchDataSample]:
    """Collate images of a pipeline without ``PackInputs``.

    The labels of the batch are one tensor. Views that
    :class:`.DrawCropFlipRotate` drew are computed here, all at once.

    Args:
        samples (list[dict]): N results of a pipeline, each with ``gt_label``
            and ``img``, (H, W, C), uint8, or ``view_of`` and ``view``.

    Returns:
        dict: ``inputs``, (N, C, H, W), uint8, and ``data_samples``.

    Raises:
        UserError: If images are packed or differ in shape.
    """
    key = 'view_of' if 'view' in samples[0] else 'img'
    if key not in samples[0]:
        raise UserError(
            "collate_fn=dict(type='collate_batch') expects unpacked images, "
            f'found {sorted(samples[0])}: remove PackInputs from the '
            'pipeline, or set collate_fn=dict(type="default_collate")'
        )
    shapes = {sample[key].shape for sample in samples}
    if len(shapes) > 1:
        raise UserError(
            'collate_batch: the images of a batch differ in shape, found '
            f'{sorted(shapes)}: add Resize to the pipeline'
        )
    images = np.stack([sample[key] for sample in samples])
    if 'view' in samples[0]:
        images = crop_flip_rotate(images, [sample['view'] for sample in samples])
    labels = torch.tensor([sample['gt_label'] for sample in samples])
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return dict(inputs=torch.from_numpy(planes), data_samples=BatchDataSample(labels))
