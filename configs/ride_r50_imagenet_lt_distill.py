# RIDE, 3 experts that also learn from the 6 of the teacher. As the official
# code does, with all losses once for every expert.
_base_ = './ride_r50_imagenet_lt.py'

model = dict(
    teacher=dict(
        config='ride_mm::ride_r50_imagenet_lt_teacher.py',
        checkpoint='work_dirs/ride_r50_imagenet_lt_teacher/epoch_100.pth',
        loss=dict(type='DistillationLoss', temperature=1.5),
        multiply_losses=True,
    )
)
