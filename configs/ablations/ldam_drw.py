# With LDAM, re-weighted from epoch 17 on, instead of logit adjustment.
_base_ = './no_router.py'

model = dict(head=dict(loss=dict(_delete_=True, type='LDAMLoss', max_margin=0.5)))
default_hooks = dict(reweighting=dict(_delete_=True, type='DeferredReweightingHook', begin=16))
