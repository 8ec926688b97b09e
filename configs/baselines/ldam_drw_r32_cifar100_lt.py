# LDAM-DRW (Cao et al., NeurIPS 2019): one full-width ResNet-32.
_base_ = [
    '../_base_/models/ride_r32.py',
    '../_base_/datasets/cifar100_lt.py',
    '../_base_/schedules/cifar_lt.py',
]

model = dict(
    num_experts=1,
    neck=dict(expert=dict(out_channels=(32, 64))),
    head=dict(in_channels=64, diversity=None, router=None),
)

optim_wrapper = dict(optimizer=dict(weight_decay=2e-4, nesterov=False))
train_cfg = dict(max_epochs=200)
default_hooks = dict(two_stage=None)
