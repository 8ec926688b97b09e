_base_ = './cifar100_lt.py'

dataset_type = 'CIFAR10LT'
data_root = 'data/cifar10'

train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = val_dataloader
