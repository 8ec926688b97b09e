# RIDE, 3 experts, ResNet-50, iNaturalist 2018: 100 epochs of the experts, then
# 5 of the router.
_base_ = [
    '_base_/models/ride_r50.py',
    '_base_/datasets/inaturalist2018.py',
    '_base_/schedules/inaturalist2018.py',
]

model = dict(head=dict(num_classes=8142, diversity=dict(gamma=0.015)))
