# RIDE with the balanced softmax in the place of LDAM and re-weighting. The
# paper's form of the diversity loss knows the class counts without them.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(
    head=dict(
        loss=dict(_delete_=True, type='BalancedSoftmaxLoss'),
        diversity=dict(form='paper')))
custom_hooks = [
    hook for hook in _base_.custom_hooks
    if hook['type'] != 'DeferredReweightingHook'
]
