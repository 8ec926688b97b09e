"""The means of the classes as the first classifiers."""

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from runs import assert_same_state, build_runner, digits_config, run_two_ranks, train
from scipy.optimize import nnls
from test_trunk_cache import kept_config

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.engine.hooks import ClassMeanInitHook
from ride_mm.utils.errors import UserError

HOOK = dict(class_means=dict(type='ClassMeanInitHook'))
# Nothing is learned, so that the first classifiers are kept.
FROZEN = {'optim_wrapper.optimizer.lr': 0.0, 'default_hooks.hook': HOOK['class_means']}


def load(work_dir, epoch):
    return load_checkpoint_file(str(work_dir / f'epoch_{epoch}.pth'))


def classifiers(state):
    return torch.stack([state[f'head.classifiers.{index}.weight'] for index in range(3)])


def test_classifiers_are_weighted_means_of_unit_features(tmp_path, monkeypatch):
    kept = []
    sum_features = ClassMeanInitHook._sum_features

    def spy(hook, runner, num_batches):
        model, maps = runner.model, runner.train_loop.dataloader.dataset
        batch = model.data_preprocessor(maps.__getitems__(list(range(105))), training=True)
        with torch.no_grad():
            features = torch.stack(model.extract_feat(batch['inputs']))
        kept.extend([F.normalize(features.double(), dim=-1), batch['data_samples'].gt_label])
        return sum_features(hook, runner, num_batches)

    monkeypatch.setattr(ClassMeanInitHook, '_sum_features', spy)
    train(kept_config(tmp_path, **FROZEN))
    features, labels = kept
    found = classifiers(load(tmp_path, 1)['state_dict']).double()
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 10, dtype=torch.float64))
    for expert in range(3):
        for label in range(10):
            own = features[expert, labels == label]
            weights, distance = nnls(own.T.numpy(), found[expert, label].numpy())
            assert distance < 1e-5 and (weights > 0).all()


def test_equal_experts_get_different_classifiers(tmp_path):
    runner = build_runner(digits_config(ROOT, tmp_path, **FROZEN))
    model = runner.model
    init = model.init_weights

    def make_equal():
        init()
        for expert in model.neck.experts[1:]:
            expert.load_state_dict(model.neck.experts[0].state_dict())

    model.init_weights = make_equal
    runner.train()
    found = classifiers(load(tmp_path, 1)['state_dict'])
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
    assert ((found[0] * found[1]).sum(dim=1) > 0.5).all()


def test_a_resumed_run_keeps_its_classifiers(tmp_path):
    whole = digits_config(ROOT, tmp_path / 'whole', **{'default_hooks.hook': HOOK['class_means']})
    train(whole)
    part = digits_config(ROOT, tmp_path / 'part', **{'default_hooks.hook': HOOK['class_means']})
    part.load_from, part.resume = str(tmp_path / 'whole/epoch_2.pth'), True
    train(part)
    assert_same_state(
        load(tmp_path / 'part', 3)['state_dict'], load(tmp_path / 'whole', 3)['state_dict']
    )


def rank(work_dir):
    train(digits_config(ROOT, work_dir, **FROZEN))


def test_two_processes_share_the_work(tmp_path):
    run_two_ranks(rank, tmp_path)
    found = classifiers(load(tmp_path, 1)['state_dict'])
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 10))


def test_a_linear_classifier_is_refused(tmp_path):
    options = {'model.head.classifier': dict(type='LinearClassifier', _delete_=True), **FROZEN}
    with pytest.raises(UserError, match='is a LinearClassifier, expected a CosineClassifier'):
        train(digits_config(ROOT, tmp_path, **options))


def test_the_router_alone_changes_no_classifier(tmp_path):
    runner = build_runner(digits_config(ROOT, tmp_path))
    before = classifiers(runner.model.state_dict()).clone()
    runner.model.set_stage('router')
    ClassMeanInitHook().before_train_epoch(runner)
    assert torch.equal(classifiers(runner.model.state_dict()), before)
