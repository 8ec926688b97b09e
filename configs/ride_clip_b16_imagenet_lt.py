# RIDE, 3 experts, on CLIP ViT-B/16 with the adapters of LIFT, ImageNet-LT: 10 epochs of
# the experts, 5 of the router. Never trained; see docs/backbones.md.
_base_ = [
    './_base_/models/ride_clip_b16.py',
    './_base_/datasets/imagenet_lt.py',
    './_base_/schedules/lift.py',
]

# What the weights expect.
data_preprocessor = dict(
    mean=[122.7709383, 116.7460125, 104.09373615], std=[68.5005327, 66.6321579, 70.32316305]
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, interpolation='bicubic', backend='pillow'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
# 8 GPUs with 16 images each
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
default_hooks = dict(two_stage=dict(train_dataloader=dict(batch_size=64)))
