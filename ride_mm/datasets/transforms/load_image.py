from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmpretrain.registry import TRANSFORMS

from ride_mm.compat.inferencers import describe_unreadable
from ride_mm.utils.errors import UserError


@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(_LoadImageFromFile):
    """MMCV's transform, which names a file that it cannot read.

    MMCV says nothing of the file where it is empty. See
    :class:`mmcv.transforms.LoadImageFromFile` for the options.
    """

    def transform(self, results: dict) -> dict | None:
        """Load an image.

        Args:
            results (dict): With ``img_path``.

        Returns:
            dict: With ``img``, ``img_shape`` and ``ori_shape`` as well.

        Raises:
            UserError: If the file is missing or no image.
        """
        try:
            return super().transform(results)
        except MemoryError:
            raise
        except Exception as error:
            raise UserError(
                describe_unreadable(results['img_path'], error)
                + '. Replace or remove it; tools/check_data.py finds all such '
                'images'
            ) from error
