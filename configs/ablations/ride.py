# With which the other ablations are compared: RIDE with 3 experts, logit adjustment and
# no diversity loss, 20 epochs of Muon, then the router.
_base_ = '../ride_r32_cifar100_lt_fast.py'

model = dict(head=dict(loss=dict(tau=1), diversity=None))

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=2, convert_to_iter_based=True),
    dict(
        type='LinearLR', start_factor=1, end_factor=0, begin=2, end=20, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=25, val_interval=20)
default_hooks = dict(
    recipe=dict(
        schedule=[dict(action_epoch=15, train_pipeline=[{{_base_.whole_image}}])],
    ),
    two_stage=dict(begin=20),
)
