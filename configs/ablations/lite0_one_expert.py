# ride_lite0_cifar100_lt.py with one expert, without a router. Its gradients are
# clipped to half the norm: those of three experts together have sqrt(3) times the norm.
_base_ = '../ride_lite0_cifar100_lt.py'

model = dict(num_experts=1, head=dict(router=None))
optim_wrapper = dict(clip_grad=dict(max_norm=2.0))
train_cfg = dict(max_epochs=10)
default_hooks = dict(two_stage=None, router_cache=None)
