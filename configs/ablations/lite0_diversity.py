# ride_lite0_cifar100_lt.py with the diversity loss of the official code.
_base_ = '../ride_lite0_cifar100_lt.py'

model = dict(
    head=dict(diversity=dict(_delete_=True, type='DiversityLoss', weight=0.45, gamma=0.05))
)
