# One network with the compute of RIDE's three experts.
_base_ = './no_router.py'

model = dict(
    num_experts=1,
    neck=dict(expert=dict(out_channels=(42, 84))),
    head=dict(in_channels=84),
)
