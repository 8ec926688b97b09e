# RIDE, 3 experts, ResNet-32, CIFAR-100-LT (imbalance 100): 200 epochs of the
# experts, then 5 of the router.
_base_ = [
    '_base_/models/ride_r32.py',
    '_base_/datasets/cifar100_lt.py',
    '_base_/schedules/cifar_lt.py',
]
