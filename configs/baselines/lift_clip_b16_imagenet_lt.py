# LIFT (Shi et al., ICML 2024): one network with adapters, no router.
_base_ = '../ride_clip_b16_imagenet_lt.py'

model = dict(num_experts=1, head=dict(router=None))
train_cfg = dict(max_epochs=10)
default_hooks = dict(two_stage=None, router_cache=None)
