# LWS: a factor for each class on the logits of the experts that
# `ride_r32_cifar100_lt.py` has trained.
_base_ = './ride_r32_cifar100_lt_crt.py'

model = dict(head=dict(learn_scales=True))
default_hooks = dict(new_classifiers=None)
