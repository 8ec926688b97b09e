import torch.nn.functional as F
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS

from ride_mm.structures import BatchDataSample
from ride_mm.utils.errors import UserError

from .heads.expert_router import RouterInputs


@MODELS.register_module()
class RIDEDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's preprocessor with support for :class:`BatchDataSample`.

    Inputs of the router are not changed.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalize the images and move everything to the model's device.

        Args:
            data (dict): A batch of the data loader: ``inputs`` and
                ``data_samples``.
            training (bool): Whether the batch is used for training. Defaults
                to False.

        Returns:
            dict: The same keys.

        Raises:
            UserError: If there are no ``inputs``.
        """
        if 'inputs' not in data:
            raise UserError(
                f'a batch has {sorted(data)} but no "inputs": end the '
                "pipeline with dict(type='PackInputs'), or set "
                "collate_fn=dict(type='collate_batch') in the dataloader"
            )
        samples = data.get('data_samples')
        if isinstance(data['inputs'], RouterInputs):
            return dict(inputs=self.cast_data(data['inputs']))
        if not isinstance(samples, BatchDataSample):
            return super().forward(data, training)
        inputs = super().forward(dict(inputs=data['inputs']))['inputs']
        samples = samples.to(self.device)
        if training and self.batch_augments is not None:
            one_hot = F.one_hot(samples.gt_label, self.num_classes)
            inputs, samples.gt_score = self.batch_augments(inputs, one_hot)
        return dict(inputs=inputs, data_samples=samples)
