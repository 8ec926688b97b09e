# Stage 2 alone, on the experts that `ride_r50_inaturalist2018.py` has trained.
_base_ = './ride_r50_inaturalist2018.py'

model = dict(stage='router')
load_from = 'work_dirs/ride_r50_inaturalist2018/epoch_100.pth'

train_dataloader = dict(
    batch_size=64, sampler=dict(_delete_=True, type='ClassBalancedSampler'))
optim_wrapper = _base_.router_stage.optim_wrapper
param_scheduler = _base_.router_stage.param_scheduler
auto_scale_lr = _base_.router_stage.auto_scale_lr

train_cfg = dict(max_epochs=_base_.router_epochs)
default_hooks = dict(reweighting=None, two_stage=None)
