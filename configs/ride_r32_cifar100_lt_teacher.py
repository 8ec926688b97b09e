# The teacher of `ride_r32_cifar100_lt_distill.py`: 6 experts, no router.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(num_experts=6, head=dict(router=None))

train_cfg = dict(max_epochs=200)
default_hooks = dict(two_stage=None)
