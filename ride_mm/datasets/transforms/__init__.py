from .collate import collate_batch
from .crop_flip_rotate import DrawCropFlipRotate

__all__ = ['DrawCropFlipRotate', 'collate_batch']
