# Balanced softmax (Ren et al., NeurIPS 2020): one full-width ResNet-32 with a
# linear classifier.
_base_ = './ce_r32_cifar100_lt.py'

model = dict(head=dict(loss=dict(type='BalancedSoftmaxLoss')))
