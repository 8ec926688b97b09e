# The fast config with the SGD of the official code instead of Muon.
_base_ = '../ride_r32_cifar100_lt_fast.py'

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=0.07, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
)
