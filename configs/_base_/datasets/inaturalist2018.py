_base_ = './imagenet_lt.py'

dataset_type = 'INaturalist2018'
# images of the competition and, beside them, iNaturalist18_{train,val}.txt
data_root = 'data/inaturalist2018'

# of its own images, in RGB
data_preprocessor = dict(
    mean=[118.83, 120.105, 96.9],
    std=[49.725, 49.47, 48.96],
)

# As ImageNet-LT's, without ColorJitter.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, interpolation='bilinear', backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]

# 8 GPUs with 64 images each
train_dataloader = dict(
    batch_size=64,
    num_workers=12,
    dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
# There is no test list: the last epoch counts, none is selected.
test_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, split='val'))
