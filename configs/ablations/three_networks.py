# Three networks that share only the first convolution, with the compute of RIDE's
# three experts.
_base_ = './no_router.py'

model = dict(
    backbone=dict(num_stages=0, base_channels=12),
    neck=dict(
        expert=dict(
            _delete_=True,
            type='CIFARResNetExpert',
            depth=32,
            in_channels=12,
            stages=(0, 1, 2),
            out_channels=(12, 22, 42),
        )
    ),
    head=dict(in_channels=42),
)
