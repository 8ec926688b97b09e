# RIDE, 3 experts, ResNet-10, ImageNet-LT: 100 epochs of the experts, then 5
# of the router.
_base_ = [
    '_base_/models/ride_r10.py',
    '_base_/datasets/imagenet_lt.py',
    '_base_/schedules/imagenet_lt.py',
]
