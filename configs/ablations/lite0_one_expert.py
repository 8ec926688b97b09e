# ride_lite0_cifar100_lt.py with one expert, without a router.
_base_ = '../ride_lite0_cifar100_lt.py'

model = dict(num_experts=1, head=dict(router=None))
train_cfg = dict(max_epochs=10)
default_hooks = dict(two_stage=None, router_cache=None)
