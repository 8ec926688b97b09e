# The fast config without the diversity loss.
_base_ = '../ride_r32_cifar100_lt_fast.py'

model = dict(head=dict(diversity=None))
