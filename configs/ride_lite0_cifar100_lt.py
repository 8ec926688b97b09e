# RIDE, 3 experts, EfficientNet-Lite0 pretrained on ImageNet, CIFAR-100-LT
# (imbalance 100) at 96 x 96 pixels: the trunk runs once over four views of each
# image, then 10 epochs of the experts and 5 of the router. See docs/backbones.md.
_base_ = [
    '_base_/models/ride_lite0.py',
    '_base_/datasets/cifar100_lt.py',
    '_base_/schedules/fine_tuning.py',
]

# What the weights expect.
data_preprocessor = dict(mean=[127.0] * 3, std=[128.0] * 3, to_rgb=True)

resize = dict(type='Resize', scale=96, interpolation='bicubic')
train_pipeline = [
    resize,
    dict(type='RandomCrop', crop_size=96, padding=12),
    dict(type='RandomFlip', prob=0.5),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=0.04))
auto_scale_lr = dict(base_batch_size=128)
val_dataloader = dict(dataset=dict(pipeline=[resize, dict(type='PackInputs')]))
test_dataloader = val_dataloader
