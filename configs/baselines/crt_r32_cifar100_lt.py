# cRT (Kang et al., ICLR 2020): a new classifier on the network that
# `ce_r32_cifar100_lt.py` has trained.
_base_ = ['./ce_r32_cifar100_lt.py', '../_base_/schedules/classifier.py']

model = dict(stage='classifier')
load_from = 'work_dirs/ce_r32_cifar100_lt/epoch_200.pth'

train_dataloader = dict(sampler=_base_.classifier_stage.sampler)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, **_base_.classifier_stage.optim_wrapper.optimizer)
)
param_scheduler = _base_.classifier_stage.param_scheduler
train_cfg = _base_.classifier_stage.train_cfg
default_hooks = dict(new_classifiers=dict(type='NewClassifiersHook'))
