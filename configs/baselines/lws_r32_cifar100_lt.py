# LWS (Kang et al., ICLR 2020): a factor for each class on the logits of the
# network that `ce_r32_cifar100_lt.py` has trained.
_base_ = './crt_r32_cifar100_lt.py'

model = dict(head=dict(learn_scales=True))
default_hooks = dict(new_classifiers=None)
