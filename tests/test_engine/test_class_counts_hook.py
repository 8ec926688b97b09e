"""The counts that the losses get are those that the metrics group by."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.hooks import Hook
from mmpretrain.registry import DATASETS, HOOKS
from runs import build_runner, digits_config, train

from ride_mm.datasets.class_counts import get_labels
from ride_mm.models.losses.ldam_loss import ldam_margins
from ride_mm.models.utils import counting_augments
from ride_mm.utils.errors import UserError


def fake_runner(val_factor):
    """Losses and loaders, as the hook sees them."""
    train, val = (
        DATASETS.build(dict(type='DigitsLT', split=split, imb_factor=factor, pipeline=[]))
        for split, factor in (('train', 0.1), ('test', val_factor))
    )
    model = torch.nn.Module()
    model.set_class_counts = lambda counts: setattr(model, 'counts', counts)
    return SimpleNamespace(
        model=model,
        val_loop=object(),
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=SimpleNamespace(dataset=val),
    )


def test_counts_of_the_training_set():
    runner = fake_runner(0.1)
    HOOKS.build(dict(type='ClassCountsHook')).before_train(runner)
    counts = runner.train_dataloader.dataset.metainfo['class_counts']
    assert runner.model.counts == counts
    assert counts[0] // counts[-1] == 10


def test_a_validation_set_of_another_profile():
    runner = fake_runner(0.05)
    hook = HOOKS.build(dict(type='ClassCountsHook'))
    with pytest.raises(UserError, match='class 1 has .*states .*imb_factor'):
        hook.before_train(runner)
    runner.val_loop = None
    hook.before_train(runner)


def test_training_tells_losses_and_batch_augmentations(root, tmp_path):
    """Mixed images in stage 1, real ones in stage 2."""
    runner = train(
        digits_config(
            root,
            tmp_path,
            **{
                'model.train_cfg': dict(augments=dict(type='Remix')),
                'model.head.loss': dict(_delete_=True, type='BalancedSoftmaxLoss'),
                'default_hooks.checkpoint.interval': 10,
            },
        )
    )
    counts = runner.train_dataloader.dataset.metainfo['class_counts']
    model = runner.model
    assert model.head.class_counts == counts
    for loss in model.head.losses:
        expected = torch.tensor(counts).double().log()
        difference = loss.class_values - expected
        torch.testing.assert_close(
            difference, difference[:1].expand(10).double(), rtol=0, atol=1e-6
        )
    assert model.stage == 'router' and model.head.router.trained
    assert model.data_preprocessor.batch_augments is None


def test_a_test_tells_whom_it_concerns(root, tmp_path):
    """The counts of the training set, from the test set's own statement."""
    for tau in (0.0, 1.0):
        cfg = digits_config(root, tmp_path)
        cfg.model.test_cfg.logit_adjustment = tau
        runner = build_runner(cfg)
        runner.test()
        counts = runner.test_dataloader.dataset.metainfo['class_counts']
        assert max(counts) > 3 * min(counts)
        assert runner.model.head.class_counts == (counts if tau else None)


def test_a_model_without_use_for_counts():
    runner = SimpleNamespace(model=torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match='found model.type="Linear"'):
        HOOKS.build(dict(type='ClassCountsHook')).before_train(runner)


def test_remix_that_is_switched_on_later(root, tmp_path):
    """As SwitchRecipeHook does, which begins to count epochs with 1; the
    router sees real images, also when it is resumed."""
    cfg = digits_config(root, tmp_path)
    recipe = dict(batch_augments=dict(augments=dict(type='Remix')))
    cfg.custom_hooks = [dict(type='SwitchRecipeHook', schedule=[dict(recipe, action_epoch=2)])]
    seen = []

    class Record(Hook):
        def after_train_epoch(self, runner):
            remix = counting_augments(runner.model)
            seen.append(remix and remix[0].class_counts.tolist())

    def run():
        runner = build_runner(cfg)
        runner.register_hook(Record())
        runner.train()
        return list(runner.train_dataloader.dataset.metainfo['class_counts'])

    counts = run()
    assert seen == [[], counts, counts, [], []]
    seen.clear()
    cfg.load_from, cfg.resume = str(tmp_path / 'epoch_4.pth'), True
    run()
    assert seen == [[]]


def test_losses_of_any_classifier(root, tmp_path):
    """LDAMLoss and EMA in mmpretrain's ImageClassifier."""
    cfg = digits_config(root, tmp_path)
    cfg.model = dict(
        type='ImageClassifier',
        backbone=dict(type='CIFARResNet', depth=20),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='LDAMLoss')),
        data_preprocessor=dict(
            type='RIDEDataPreprocessor',
            num_classes=10,
            batch_augments=dict(augments=dict(type='Remix')),
        ),
    )
    cfg.default_hooks.two_stage = cfg.default_hooks.reweighting = None
    cfg.custom_hooks = [dict(type='EMAHook')]
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    runner = train(cfg)
    counts = runner.train_dataloader.dataset.metainfo['class_counts']
    margins = runner.model.head.loss_module.class_values
    torch.testing.assert_close(margins, ldam_margins(counts, 0.5).float(), rtol=0, atol=0)
    (remix,) = counting_augments(runner.model)
    assert remix.class_counts.tolist() == list(counts)


def test_a_loss_that_nobody_tells_the_counts(root, tmp_path):
    cfg = digits_config(root, tmp_path)
    cfg.default_hooks.class_counts = cfg.default_hooks.reweighting = None
    with pytest.raises(UserError, match='LDAMLoss has no .*ClassCountsHook'):
        train(cfg)


def test_a_run_on_indices(tmp_path):
    cfg = digits_config(
        ROOT, tmp_path, **{'train_dataloader.dataset.indices': list(range(0, 105, 2))}
    )
    runner = build_runner(cfg)
    warnings = []
    runner.logger.warning = lambda text, *_: warnings.append(text)
    runner.train_loop, runner.val_loop
    runner.call_hook('before_train')
    assert any('indices leaves 53 of 105' in text for text in warnings)
    labels = get_labels(runner.train_dataloader.dataset)
    counts = np.bincount(labels, minlength=10).tolist()
    metric = runner.val_loop.evaluator.metrics[0]
    assert list(metric.dataset_meta['class_counts']) == counts
    cfg.train_dataloader.dataset.indices = 30
    with pytest.raises(UserError, match='9 of 10 classes have no training'):
        build_runner(cfg).train()
