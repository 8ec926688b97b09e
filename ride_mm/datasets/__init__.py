"""Datasets, class counts and groups, samplers and augmentation."""

from .cifar_lt import CIFAR10LT, CIFAR100LT
from .digits_lt import DigitsLT
from .folders import install_folder_reading
from .list_lt import ImageNetLT, INaturalist2018, LongTailList, PlacesLT
from .samplers import ClassBalancedSampler, PowerSampler
from .subsets import bootstrap, hold_out
from .transforms import CIFARAutoAugment, DrawCropFlipRotate, LoadImageFromFile, collate_batch
from .wrappers import ConcatDataset, KFoldDataset, RepeatDataset

install_folder_reading()

__all__ = [
    'CIFAR10LT',
    'CIFAR100LT',
    'CIFARAutoAugment',
    'ClassBalancedSampler',
    'ConcatDataset',
    'DigitsLT',
    'DrawCropFlipRotate',
    'INaturalist2018',
    'ImageNetLT',
    'KFoldDataset',
    'LoadImageFromFile',
    'LongTailList',
    'PlacesLT',
    'PowerSampler',
    'RepeatDataset',
    'bootstrap',
    'collate_batch',
    'hold_out',
]
