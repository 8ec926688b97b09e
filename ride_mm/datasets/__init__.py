from .bootstrap import bootstrap
from .cifar_lt import CIFAR10LT, CIFAR100LT
from .custom import install_folder_reading
from .digits_lt import DigitsLT
from .hold_out import hold_out
from .list_lt import ImageNetLT, INaturalist2018, LongTailList, PlacesLT
from .samplers import ClassBalancedSampler, PowerSampler
from .transforms import DrawCropFlipRotate, LoadImageFromFile, collate_batch
from .wrappers import ConcatDataset, KFoldDataset, RepeatDataset

install_folder_reading()

__all__ = [
    'CIFAR10LT',
    'CIFAR100LT',
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
