# RIDE, 3 experts that also learn from the 6 of the teacher. As the official
# code does, with all losses once for every expert and a longer warm-up.
_base_ = './ride_r32_cifar10_lt.py'

model = dict(
    teacher=dict(
        config='ride_mm::ride_r32_cifar10_lt_teacher.py',
        checkpoint='work_dirs/ride_r32_cifar10_lt_teacher/epoch_200.pth',
        loss=dict(type='DistillationLoss', temperature=1.5),
        multiply_losses=True,
    )
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 20, by_epoch=True, end=20),
    dict(type='MultiStepLR', milestones=[160, 180], gamma=0.01, by_epoch=True),
]
