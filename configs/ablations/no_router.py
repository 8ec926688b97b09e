# The same without a router.
_base_ = './ride.py'

model = dict(head=dict(router=None))
train_cfg = dict(max_epochs=20)
default_hooks = dict(two_stage=None, router_cache=None)
