# LIFT (Shi et al., ICML 2024): 10 epochs of the adapters at 128 images per step,
# then the router. Adapters in the trunk change what it gives, so it cannot be kept.
_base_ = './fine_tuning.py'

optim_wrapper = dict(optimizer=dict(lr=0.01, nesterov=False), clip_grad=None)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=10, end=10)]
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(trunk_cache=None)
