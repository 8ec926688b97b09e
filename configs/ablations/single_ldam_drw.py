# One network with the compute of RIDE's three experts, LDAM-DRW.
_base_ = './ldam_drw.py'

model = dict(
    num_experts=1,
    neck=dict(expert=dict(out_channels=(42, 84))),
    head=dict(in_channels=84),
)
