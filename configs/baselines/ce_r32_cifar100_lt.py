# Plain cross entropy: one full-width ResNet-32 with a linear classifier.
_base_ = './ldam_drw_r32_cifar100_lt.py'

model = dict(
    head=dict(
        classifier=dict(_delete_=True, type='LinearClassifier'),
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
    )
)
default_hooks = dict(reweighting=None)
