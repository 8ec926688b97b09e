# 100 epochs at 512 images per step (8 GPUs with 64), then the router at 512.
_base_ = './imagenet_lt.py'

optim_wrapper = dict(optimizer=dict(lr=0.2))
auto_scale_lr = dict(base_batch_size=512)
