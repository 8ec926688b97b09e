# RIDE, 3 experts, Swin-T, ImageNet-LT: 300 epochs of the experts, then 5 of
# the router. The official recipe mixes images (Mixup, CutMix) and smooths
# labels; here they stay as they are.
_base_ = [
    '_base_/models/ride_swin_t.py',
    '_base_/datasets/imagenet_lt_swin.py',
    '_base_/schedules/imagenet_lt_swin.py',
    '_base_/default_runtime.py',
]

# The official code divides the diversity loss by the number of experts: with
# two this is 0.1.
model = dict(head=dict(diversity=dict(weight=0.2 / 3)))
