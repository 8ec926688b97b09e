dataset_type = 'CIFAR100LT'
data_root = 'data/cifar100'

# Of CIFAR-10, as in the official code.
data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], to_rgb=True
)

# Crop with padding, mirror, rotate: drawn here, done by `collate_batch`.
train_pipeline = [dict(type='DrawCropFlipRotate', size=32, padding=4, degrees=15)]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    collate_fn=dict(type='collate_batch'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        # the test set follows these, so that metrics know the classes' sizes
        imb_type='exp',
        imb_factor=0.01,
        # as images that are loaded from files, for inference on those
        to_bgr=True,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    dataset=dict(
        type=dataset_type, data_root=data_root, split='test', to_bgr=True, pipeline=test_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = [
    dict(type='LongTailMetric', topk=(1, 5)),
    dict(type='ExpertUsageMetric'),
]

# CIFAR has no validation list: the last epoch counts, none is selected.
test_dataloader = val_dataloader
test_evaluator = val_evaluator
