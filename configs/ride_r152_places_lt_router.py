# Stage 2 alone, on the experts that `ride_r152_places_lt.py` has trained.
_base_ = './ride_r152_places_lt.py'

# nothing is left to be pretrained
model = dict(stage='router', init_cfg=None)
load_from = 'work_dirs/ride_r152_places_lt/epoch_30.pth'

train_dataloader = dict(
    batch_size=128, sampler=dict(_delete_=True, type='ClassBalancedSampler'))
optim_wrapper = dict(_delete_=True, **_base_.router_stage.optim_wrapper)
param_scheduler = _base_.router_stage.param_scheduler
auto_scale_lr = _base_.router_stage.auto_scale_lr

train_cfg = dict(max_epochs=_base_.router_epochs)
default_hooks = dict(reweighting=None, two_stage=None)
