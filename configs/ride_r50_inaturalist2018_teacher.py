# The teacher of `ride_r50_inaturalist2018_distill.py`: 6 experts, no router.
_base_ = './ride_r50_inaturalist2018.py'

model = dict(num_experts=6, head=dict(router=None))

train_cfg = dict(max_epochs=100)
default_hooks = dict(two_stage=None)
