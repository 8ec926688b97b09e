# RIDE with the balanced softmax in the place of LDAM and re-weighting. Without
# re-weighted epochs the diversity loss has one temperature for all classes.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(head=dict(loss=dict(_delete_=True, type='BalancedSoftmaxLoss')))
default_hooks = dict(reweighting=None)
