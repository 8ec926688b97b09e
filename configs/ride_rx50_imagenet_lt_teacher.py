# The teacher of `ride_rx50_imagenet_lt_distill.py`: 6 experts, no router.
_base_ = './ride_rx50_imagenet_lt.py'

model = dict(num_experts=6, head=dict(router=None))

train_cfg = dict(max_epochs=100)
default_hooks = dict(two_stage=None)
