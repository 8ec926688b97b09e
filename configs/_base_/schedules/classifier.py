# Classifiers on frozen experts, as Kang et al. train them on ImageNet-LT: 10
# epochs of images that are drawn from all classes alike, cosine annealing.
# Used by the `_crt` and `_lws` configs.
classifier_stage = dict(
    sampler=dict(_delete_=True, type='ClassBalancedSampler'),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)),
    param_scheduler=[dict(type='CosineAnnealingLR', T_max=10, by_epoch=True, end=10)],
    train_cfg=dict(max_epochs=10),
)
