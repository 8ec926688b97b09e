# RIDE, 3 experts, ResNet-152 pretrained on ImageNet, Places-LT: 30 epochs of
# the experts, then 5 of the router. RIDE's official code has no recipe for it:
# optimizer, schedule and full width are those that SADE fine-tunes three such
# experts with, the losses those of RIDE on ImageNet-LT, re-weighted from the
# second drop of the rate on, as there.
_base_ = [
    '_base_/models/ride_r152_pretrained.py',
    '_base_/datasets/places_lt.py',
    '_base_/schedules/places_lt.py',
]

model = dict(head=dict(num_classes=365))
