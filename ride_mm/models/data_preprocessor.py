import torch.nn.functional as F
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS

from ride_mm.structures import BatchDataSample, TrunkMaps
from ride_mm.utils.errors import UserError

from .heads.expert_router import RouterInputs


@MODELS.register_module()
class RIDEDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's preprocessor with support for :class:`BatchDataSample`.

    Cached :class:`.RouterInputs` and :class:`.TrunkMaps` are only moved to the
    device, the latter in single precision.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move a batch to the model's device, normalize and augment the images.

        Args:
            data (dict): A batch of the dataloader, with ``inputs`` and
                ``data_samples``.
            training (bool): Whether to apply the batch augmentations. Defaults
                to False.

        Returns:
            dict: ``inputs`` and, except for :class:`.RouterInputs`,
            ``data_samples``.

        Raises:
            UserError: If there are no ``inputs``.
        """
        if 'inputs' not in data:
            raise UserError(
                f'a batch has {sorted(data)} but no "inputs": end the pipeline with '
                "dict(type='PackInputs'), or set collate_fn=dict(type='collate_batch') in the "
                'dataloader'
            )
        if isinstance(data['inputs'], RouterInputs):
            return dict(inputs=self.cast_data(data['inputs']))
        if isinstance(data['inputs'], TrunkMaps):
            maps = data['inputs'].maps.to(self.device).float()
            return dict(inputs=TrunkMaps(maps), data_samples=data['data_samples'].to(self.device))
        samples = data.get('data_samples')
        if not isinstance(samples, BatchDataSample):
            return super().forward(data, training)
        inputs = super().forward(dict(inputs=data['inputs']))['inputs']
        samples = samples.to(self.device)
        if training and self.batch_augments is not None:
            one_hot = F.one_hot(samples.gt_label, self.num_classes)
            inputs, samples.gt_score = self.batch_augments(inputs, one_hot)
        return dict(inputs=inputs, data_samples=samples)
