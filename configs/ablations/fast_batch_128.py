# The fast config with 128 instead of 64 images per step.
_base_ = '../ride_r32_cifar100_lt_fast.py'

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.05, sgd_lr=0.1))
auto_scale_lr = dict(base_batch_size=128)
