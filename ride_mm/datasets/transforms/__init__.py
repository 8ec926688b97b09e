"""Loading and augmentation of images."""

from .cifar_auto_augment import CIFARAutoAugment
from .collate import collate_batch
from .crop_flip_rotate import DrawCropFlipRotate
from .load_image import LoadImageFromFile

__all__ = ['CIFARAutoAugment', 'DrawCropFlipRotate', 'LoadImageFromFile', 'collate_batch']
