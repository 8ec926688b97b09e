# The fast config with LDAM, re-weighted from epoch 41 on, instead of logit adjustment.
_base_ = '../ride_r32_cifar100_lt_fast.py'

model = dict(head=dict(loss=dict(_delete_=True, type='LDAMLoss', max_margin=0.5)))
default_hooks = dict(reweighting=dict(_delete_=True, type='DeferredReweightingHook', begin=40))
