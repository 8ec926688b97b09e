from .cifar_resnet_expert import CIFARResNetExpert
from .multi_expert_neck import MultiExpertNeck
from .resnet_expert import ResNetExpert

__all__ = ['CIFARResNetExpert', 'MultiExpertNeck', 'ResNetExpert']
