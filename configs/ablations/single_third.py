# One network with a third of the compute of RIDE's three experts: three of them
# are an ensemble of the same compute.
_base_ = './no_router.py'

model = dict(
    num_experts=1,
    backbone=dict(base_channels=12),
    neck=dict(expert=dict(in_channels=12, out_channels=(22, 42))),
    head=dict(in_channels=42),
)
