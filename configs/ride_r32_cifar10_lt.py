# RIDE, 3 experts, ResNet-32, CIFAR-10-LT (imbalance 100). The official code
# has no recipe for it: this is CIFAR-100-LT's; with 10 classes the router
# sees all 10 logits.
_base_ = [
    '_base_/models/ride_r32.py',
    '_base_/datasets/cifar10_lt.py',
    '_base_/schedules/cifar_lt.py',
]

model = dict(head=dict(num_classes=10, router=dict(topk=10)))
