# Scanned digits that come with scikit-learn: nothing to download.
dataset_type = 'DigitsLT'

data_preprocessor = dict(mean=[77.5] * 3, std=[96.0] * 3, to_rgb=False)

# scans of 8x8 pixels, enlarged
resize = dict(type='Resize', scale=(16, 16))
train_pipeline = [
    resize,
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='torchvision/RandomCrop', size=16, padding=2),
    dict(type='torchvision/RandomRotation', degrees=15),
    dict(type='PILToNumpy', to_bgr=False),
    dict(type='PackInputs'),
]
test_pipeline = [resize, dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(type=dataset_type, split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=220,
    num_workers=1,
    dataset=dict(type=dataset_type, split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = [
    dict(type='LongTailMetric'),
    dict(type='ExpertUsageMetric'),
]

# There is no validation list: the last epoch counts, none is selected.
test_dataloader = val_dataloader
test_evaluator = val_evaluator
