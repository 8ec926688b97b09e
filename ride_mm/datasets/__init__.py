from .cifar_lt import CIFAR10LT, CIFAR100LT
from .digits_lt import DigitsLT
from .list_lt import ImageNetLT, INaturalist2018, LongTailList, PlacesLT
from .samplers import ClassBalancedSampler, PowerSampler

__all__ = [
    'CIFAR10LT', 'CIFAR100LT', 'ClassBalancedSampler', 'DigitsLT',
    'INaturalist2018', 'ImageNetLT', 'LongTailList', 'PlacesLT', 'PowerSampler'
]
