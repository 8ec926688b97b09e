# RIDE, 3 experts, on DINOv2 ViT-B/14 with the adapters of LIFT, ImageNet-LT: 10 epochs
# of the experts, 5 of the router. Never trained; see docs/backbones.md.
_base_ = [
    './_base_/models/ride_dinov2_b14.py',
    './_base_/datasets/imagenet_lt.py',
    './_base_/schedules/lift.py',
]

train_dataloader = dict(batch_size=16)
default_hooks = dict(two_stage=dict(train_dataloader=dict(batch_size=64)))
