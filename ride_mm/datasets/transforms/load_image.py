from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmpretrain.registry import TRANSFORMS

from ride_mm.utils.errors import UserError, describe_unreadable


@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(_LoadImageFromFile):
    """MMCV's ``LoadImageFromFile``, with an error that names an unreadable file.

    See :class:`mmcv.transforms.LoadImageFromFile` for the options.
    """

    def transform(self, results: dict) -> dict | None:
        """Load ``img_path`` into ``img``, and add ``img_shape`` and ``ori_shape``.

        Raises:
            UserError: If the file is missing or not an image.
        """
        try:
            return super().transform(results)
        except MemoryError:
            raise
        except Exception as error:
            raise UserError(
                describe_unreadable(results['img_path'], error)
                + '. Replace or remove it; tools/check_data.py finds all such images'
            ) from error
