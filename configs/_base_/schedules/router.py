# Stage 2 of the official recipes: 5 epochs, 512 images drawn from all classes
# alike, cosine annealing. Used by `TwoStageHook`.
router_epochs = 5
router_stage = dict(
    train_dataloader=dict(batch_size=512, sampler=dict(type='ClassBalancedSampler')),
    optim_wrapper=dict(
        optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    ),
    param_scheduler=[
        dict(type='CosineAnnealingLR', T_max=router_epochs, by_epoch=True, end=router_epochs)
    ],
    auto_scale_lr=dict(base_batch_size=512),
)
