# Three experts that also learn from six.
_base_ = './no_router.py'

model = dict(
    teacher=dict(
        config='ride_mm::ablations/experts_6.py',
        checkpoint='work_dirs/sweep/experts_6/seed_0/epoch_20.pth',
        loss=dict(type='DistillationLoss', temperature=1.5),
    )
)
