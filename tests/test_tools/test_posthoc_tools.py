"""Decoupled training on a checkpoint of stage 1, with and without experts,
and the temperature of a trained model."""

import importlib
import logging
import os

import mmengine
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import load_tool
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS

from ride_mm.analysis import read_predictions, set_thresholds, sets_of
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine import launch
from ride_mm.engine.config import load_config
from ride_mm.evaluation.long_tail import long_tail_accuracy
from ride_mm.utils.errors import UserError

# Digits as scanned, a tenth of the training set held out to choose on.
CONFIG = """
_base_ = '{root}/configs/ride_r32_digits_lt.py'

model = dict(
    num_experts={experts},
    backbone=dict(depth=20),
    neck=dict(expert=dict(depth=20)),
    head=dict(
        classifier=dict(_delete_=True, type='{classifier}'),
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
        diversity=None, router=None))
train_set = _base_.train_dataloader.dataset
val_set = dict(train_set, pipeline=[
    dict(type='Resize', scale=(8, 8)), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=32, num_workers=0, dataset=dict(
        _delete_=True, type='HoldOut', held_out=False, dataset=train_set))
val_dataloader = dict(
    num_workers=0, dataset=dict(
        _delete_=True, type='HoldOut', held_out=True, dataset=val_set))
test_dataloader = dict(
    num_workers=0, dataset=dict(pipeline=val_set['pipeline']))
default_hooks = dict(reweighting=None, two_stage=None)
log_level = 'ERROR'
"""
STAGE = """
_base_ = './{name}.py'

model = dict(stage='classifier', head=dict(learn_scales={scales}))
load_from = '{checkpoint}'
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2)
val_cfg = val_dataloader = val_evaluator = None
param_scheduler = []
default_hooks = dict(new_classifiers={hook})
"""


@pytest.fixture
def tool(root, monkeypatch, tmp_path):
    """Run a tool in an empty folder."""
    for folder in ('decoupling', 'analysis'):
        monkeypatch.syspath_prepend(root / 'tools' / folder)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)

    def run(name, *args):
        importlib.import_module(name).main(list(map(str, args)))

    return run


def write_config(root, name, experts=3, classifier='LinearClassifier'):
    text = CONFIG.format(root=root, experts=experts, classifier=classifier)
    with open(f'{name}.py', 'w') as file:
        file.write(text)
    return f'{name}.py'


def write_checkpoint(config):
    """A checkpoint of stage 1: features that know a little, by chance."""
    torch.manual_seed(0)
    cfg = Config.fromfile(config)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    for classifier in model.head.classifiers:
        with torch.no_grad():
            classifier.weight *= torch.arange(1.0, 11.0).unsqueeze(1)
    path = config.replace('.py', '.pth')
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)
    return path, model


def images_of(dataset, model):
    """Images as the model takes them, and their labels."""
    dataset = DATASETS.build(dataset)
    inputs = torch.stack([dataset[i]['inputs'] for i in range(len(dataset))])
    data = model.data_preprocessor(dict(inputs=inputs))
    return data['inputs'], torch.tensor(dataset.get_gt_labels())


@pytest.mark.parametrize('experts', [1, 3])
def test_tau_normalization(root, tool, experts, capsys):
    config = write_config(root, 'linear', experts)
    checkpoint, model = write_checkpoint(config)
    tool('choose_tau', config, checkpoint, 'tau-norm', '--out', 'new.pth', '--taus', 0, 0.5, 1, 1.5)
    cfg = Config.fromfile(config)
    images, labels = images_of(cfg.val_dataloader.dataset, model)
    feats = [feat.detach() for feat in model.extract_feat(images)]
    counts = [5] * 10
    figures = {}
    for tau in (0.0, 0.5, 1.0, 1.5):
        logits = sum(
            feat @ (layer.weight / layer.weight.norm(dim=1)[:, None] ** tau).T
            for feat, layer in zip(feats, model.head.classifiers)
        )
        hits = (logits.argmax(1) == labels).numpy()
        figures[tau] = long_tail_accuracy(hits, labels.numpy(), counts)
    best = max(figures, key=lambda tau: figures[tau]['balanced'])
    out = capsys.readouterr().out
    assert f'| {best:g} < ' in out
    for tau, values in figures.items():
        assert f'{values["balanced"]:.2f}' in out
    state = torch.load('new.pth')['state_dict']
    for index, layer in enumerate(model.head.classifiers):
        key = f'head.classifiers.{index}'
        torch.testing.assert_close(
            state[f'{key}.weight'], layer.weight / layer.weight.norm(dim=1)[:, None] ** best
        )
        assert not state[f'{key}.bias'].any()
    model.load_state_dict(state)


def test_logit_adjustment(root, tool, capsys):
    config = write_config(root, 'linear')
    checkpoint, model = write_checkpoint(config)
    tool('choose_tau', config, checkpoint, 'logit-adjustment', '--taus', 0, 1, 2)
    cfg = Config.fromfile(config)
    dataset = cfg.val_dataloader.dataset
    images, labels = images_of(dataset, model)
    counts = DATASETS.build(dataset).metainfo['class_counts']
    prior = torch.tensor(counts) / sum(counts)
    with torch.no_grad():
        logits = model(images)
    figures = {}
    for tau in (0, 1, 2):
        hits = (logits - tau * prior.log()).argmax(1) == labels
        figures[tau] = long_tail_accuracy(hits.numpy(), labels.numpy(), counts)
    best = max(figures, key=lambda tau: figures[tau]['balanced'])
    out = capsys.readouterr().out
    assert f'model.test_cfg.logit_adjustment={best}' in out
    assert f'{figures[best]["balanced"]:.2f}' in out
    assert figures[best] != figures[0]


@pytest.mark.parametrize('experts', [1, 3])
def test_nearest_class_mean(root, tool, experts):
    """The classifiers of the checkpoint are of another type."""
    checkpoint, model = write_checkpoint(write_config(root, 'linear', experts))
    config = write_config(root, 'cosine', experts, 'CosineClassifier')
    tool('nearest_class_mean', config, checkpoint, '--out', 'ncm.pth')
    cfg = Config.fromfile(config)
    dataset = cfg.train_dataloader.dataset
    dataset.dataset.pipeline = cfg.test_dataloader.dataset.pipeline
    images, labels = images_of(dataset, model)
    state = torch.load('ncm.pth')['state_dict']
    for index, feats in enumerate(model.extract_feat(images)):
        for label in range(10):
            chosen = feats[labels == label].detach().double()
            torch.testing.assert_close(
                state[f'head.classifiers.{index}.weight'][label].double(),
                sum(chosen) / len(chosen),
                rtol=1e-4,
                atol=1e-6,
            )
    MODELS.build(cfg.model).load_state_dict(state)


def test_temperature(root, tool, capsys):
    """Of nearest class means, so that the scores mean something."""
    checkpoint, _ = write_checkpoint(write_config(root, 'linear'))
    config = write_config(root, 'cosine', classifier='CosineClassifier')
    tool('nearest_class_mean', config, checkpoint, '--out', 'ncm.pth')
    tool('fit_temperature', config, 'ncm.pth', '--out', 'warm.pth')
    saved = torch.load('warm.pth')
    temperature = saved['meta']['temperature']
    assert saved['state_dict']['head.temperature'] == pytest.approx(temperature)
    cfg = Config.fromfile(config)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    model.load_state_dict(saved['state_dict'])
    images, labels = images_of(cfg.val_dataloader.dataset, model)
    with torch.no_grad():
        logits = model(images).double()
        scores = torch.stack([s.pred_score for s in model.predict(images)])
    torch.testing.assert_close(
        scores.double(), (logits / temperature).softmax(1), rtol=1e-4, atol=1e-6
    )

    def nll(value):
        return F.cross_entropy(logits / value, labels).item()

    assert nll(temperature) < min(nll(0.99 * temperature), nll(1.01 * temperature))
    out = capsys.readouterr().out
    for value in (1.0, temperature):
        assert f'{nll(value):.4f}' in out


@pytest.mark.parametrize('experts', [1, 3])
@pytest.mark.parametrize('scales', [False, True])
def test_classifiers_are_trained_alone(root, tool, scales, experts, tmp_path):
    """cRT and LWS; interrupted and resumed, with the same weights."""
    checkpoint, model = write_checkpoint(write_config(root, 'linear', experts))
    hook = None if scales else dict(type='NewClassifiersHook')
    (tmp_path / 'stage.py').write_text(
        STAGE.format(name='linear', scales=scales, checkpoint=checkpoint, hook=hook)
    )
    states = []
    for name, epochs in (('whole', [2]), ('parts', [1, 2])):
        for max_epochs in epochs:
            cfg = load_config('stage.py')
            cfg.merge_from_dict(
                {
                    'work_dir': name,
                    'train_cfg.max_epochs': max_epochs,
                    'experiment_name': f'{name}_{max_epochs}_{scales}_{experts}',
                    'default_hooks.checkpoint.interval': 1,
                }
            )
            if max_epochs != epochs[0]:
                cfg.load_from, cfg.resume = None, True
            launch.set_dataloader_defaults(cfg)
            runner = launch.build_runner(cfg)
            runner.logger.setLevel(logging.ERROR)
            runner.train()
        states.append(runner.model.cpu().state_dict())
    changed = {
        key
        for key, value in states[-1].items()
        if key != 'head.scales' and not torch.equal(value, model.state_dict()[key])
    }
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key]), key
    if scales:
        assert not changed
        assert not (states[0]['head.scales'] == 1).any()
    else:
        assert changed == {
            f'head.classifiers.{i}.{name}' for i in range(experts) for name in ('weight', 'bias')
        }
        # New ones: far from those that had grown with the class.
        assert states[0]['head.classifiers.0.weight'].abs().max() < 0.5


def test_mistakes(root, tool, tmp_path, capsys):
    config = write_config(root, 'linear')
    checkpoint, _ = write_checkpoint(config)
    with pytest.raises(UserError, match='must not be used for this choice'):
        tool(
            'choose_tau',
            root / 'configs/ride_r32_digits_lt.py',
            checkpoint,
            'tau-norm',
            '--out',
            'new.pth',
        )
    with pytest.raises(UserError, match='must not be used for this choice'):
        tool(
            'fit_temperature',
            root / 'configs/ride_r32_digits_lt.py',
            checkpoint,
            '--out',
            'new.pth',
        )
    # The same images, although the datasets are not written alike.
    for option, name in (('imb_factor=.05', 'test'), ('split=train', 'train')):
        with pytest.raises(UserError, match=f'are in the {name} set, which'):
            tool(
                'fit_temperature',
                root / 'configs/ride_r32_digits_lt.py',
                checkpoint,
                '--out',
                'new.pth',
                '--cfg-options',
                f'val_dataloader.dataset.{option}',
            )
    with pytest.raises(UserError, match='config has no val_dataloader'):
        tool(
            'choose_tau',
            config,
            checkpoint,
            'tau-norm',
            '--out',
            'new.pth',
            '--cfg-options',
            'val_dataloader=None',
        )
    with pytest.raises(SystemExit):
        tool('choose_tau', config, checkpoint, 'tau-norm')
    assert '--out FILE is required for tau-norm' in capsys.readouterr().err
    with pytest.raises(UserError, match='needs model.head.classifier'):
        tool('nearest_class_mean', config, checkpoint, '--out', 'new.pth')
    (tmp_path / 'old.pth').touch()
    with pytest.raises(UserError, match='not overwritten'):
        tool('nearest_class_mean', config, checkpoint, '--out', 'old.pth')
    config = write_config(root, 'cosine', classifier='CosineClassifier')
    checkpoint, _ = write_checkpoint(config)
    with pytest.raises(UserError, match='has no norms to divide by'):
        tool('choose_tau', config, checkpoint, 'tau-norm', '--out', 'new.pth')
    assert not (tmp_path / 'new.pth').exists()


def test_predictions_of_the_validation_set(root, tool):
    """`test.py --split val` tests on images that are neither trained nor tested on."""
    config = write_config(root, 'linear')
    checkpoint, _ = write_checkpoint(config)
    main = load_tool('tools/test.py').main
    main([config, checkpoint, '--split', 'val', '--out', 'val.npz'])
    main([config, checkpoint, '--out', 'test.npz'])
    cfg = Config.fromfile(config)
    for split in ('val', 'test'):
        predictions = read_predictions(f'{split}.npz')
        assert predictions.run['split'] == split
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert predictions.gt_label.tolist() == list(dataset.get_gt_labels())
    same = {'val_dataloader': cfg.test_dataloader.to_dict()}
    Config(dict(cfg, **same)).dump('same.py')
    with pytest.raises(UserError, match='are in the test set, which must not be used'):
        main(['same.py', checkpoint, '--split', 'val'])


def test_what_can_occur(root, tool):
    """`test.py --classes` and `--prior` multiply the scores by the frequencies."""
    config = write_config(root, 'linear')
    checkpoint, _ = write_checkpoint(config)
    with open('classes.txt', 'w') as file:
        file.write('3\n5\n8\n')
    main = load_tool('tools/test.py').main
    main([config, checkpoint, '--out', 'all.npz'])
    main([config, checkpoint, '--out', 'some.npz', '--classes', 'classes.txt'])
    main([config, checkpoint, '--out', 'frequent.npz', '--prior', 'counts', '--all-experts'])
    scores = read_predictions('all.npz').pred_score
    few = read_predictions('some.npz')
    chosen = np.isin(np.arange(10), [3, 5, 8])
    expected = scores * chosen / (scores * chosen).sum(1, keepdims=True)
    np.testing.assert_allclose(few.pred_score, expected, atol=1e-6)
    assert (few.pred_score[:, ~chosen] == 0).all()
    assert few.run['prior'] == chosen.astype(float).tolist()
    frequent = read_predictions('frequent.npz')
    counts = np.array(frequent.run['class_counts'])
    expected = scores * counts / (scores * counts).sum(1, keepdims=True)
    np.testing.assert_allclose(frequent.pred_score, expected, atol=1e-6)
    of_experts = torch.from_numpy(frequent.expert_logits.mean(0)).softmax(1)
    np.testing.assert_allclose(of_experts, expected, atol=1e-6)


def test_prediction_sets(root, tool, capsys):
    config = write_config(root, 'linear')
    checkpoint, _ = write_checkpoint(config)
    main = load_tool('tools/test.py').main
    main([config, checkpoint, '--split', 'val', '--out', 'val.npz'])
    val = read_predictions('val.npz')
    groups = ClassGroups(val.run['class_counts'])
    expected = set_thresholds(val.pred_score, val.gt_label, groups, 0.5)
    tool('fit_sets', config, checkpoint, '--coverage', 0.5, '--out', 'sets.pth')
    assert 'labels in a set' in capsys.readouterr().out
    main([config, 'sets.pth', '--out', 'sets.npz'])
    found = read_predictions('sets.npz')
    np.testing.assert_allclose(found.run['set_thresholds'], expected, atol=1e-6)
    tool('summarize', config, 'sets.npz', '--json', 'figures.json')
    assert 'label in the set (%)' in ' '.join(capsys.readouterr().out.split())
    figures = mmengine.load('figures.json')
    sets = sets_of(found.pred_score, np.array(found.run['set_thresholds']))
    assert figures['sets/size'] == pytest.approx(sets.sum(1).mean())
    with pytest.raises(UserError, match='are too few for sets'):
        tool('fit_sets', config, checkpoint, '--coverage', 0.999, '--out', 'new.pth')
    assert not os.path.exists('new.pth')
