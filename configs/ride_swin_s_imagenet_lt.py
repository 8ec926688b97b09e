# RIDE, 3 experts, Swin-S, ImageNet-LT: 300 epochs of the experts, then 5 of
# the router. docs/differences.md says how the loss and the groups differ from
# the official code of this backbone.
_base_ = [
    '_base_/models/ride_swin_s.py',
    '_base_/datasets/imagenet_lt_swin.py',
    '_base_/schedules/imagenet_lt_swin.py',
]

# The official code divides the diversity loss by the number of experts: with
# two this is 0.1, and the weight decay 0.2.
model = dict(head=dict(diversity=dict(weight=0.2 / 3)))
optim_wrapper = dict(optimizer=dict(weight_decay=0.3))
