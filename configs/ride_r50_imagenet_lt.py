# RIDE, 3 experts, ResNet-50, ImageNet-LT: 100 epochs of the experts, then 5
# of the router.
#     bash tools/dist_train.sh configs/ride_r50_imagenet_lt.py 8
_base_ = [
    '_base_/models/ride_r50.py',
    '_base_/datasets/imagenet_lt.py',
    '_base_/schedules/imagenet_lt.py',
]
