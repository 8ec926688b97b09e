"""Converted official networks answer as the official code did."""

import functools

import official_format
import pytest
import torch
from draws import FOLDER, Answers
from mmpretrain.registry import MODELS
from official_format import to_official, to_ours
from official_resnet import CLASSES
from test_converters import same

NAMES = sorted(path.stem for path in FOLDER.glob('*.npz'))


def asked_for(settings):
    """Options of an official network, by the names that both share."""
    if 'MODEL' in settings:
        model = settings['MODEL']
        names = dict(
            NUM_EXPERTS='num_experts',
            NUM_CLASSES='num_classes',
            USE_NORMED_LINEAR='use_normed_linear',
            FORCE_ORIGINAL_FEATURE_DIM='force_original_feature_dim',
        )
        return dict(
            {name: model[key] for key, name in names.items()},
            type='SwinTransformer',
            depths=model['SWIN']['DEPTHS'],
            num_heads=model['SWIN']['NUM_HEADS'],
        )
    arch = settings['arch']
    options = dict(arch['args'], type=arch['type'])
    options.pop('reduce_dimension', None)
    return options


def test_all_official_networks_are_here():
    kinds = {Answers.load(name).arch['type'] for name in NAMES}
    assert kinds == {*CLASSES, 'SwinTransformer'}


@pytest.fixture
def expected_once(monkeypatch, no_init):
    """Both conversions of a network compare with one model of it."""
    expected = functools.cache(official_format._expected)
    monkeypatch.setattr(official_format, '_expected', lambda network: {**expected(network)})


@torch.no_grad()
@pytest.mark.parametrize('name', NAMES)
@pytest.mark.usefixtures('expected_once')
def test_answers_of_the_official_code(name):
    answers = Answers.load(name)
    official = answers.draw()
    network, state = to_ours(official)
    settings = network.official_settings()
    assert asked_for(settings).items() >= asked_for(dict(arch=answers.arch)).items()

    model = MODELS.build(network.model()).eval()
    model.load_state_dict(state)
    routes = answers.num_experts is not None
    assert (model.head.router is not None) == routes
    if routes:
        assert len(set(answers.num_experts)) > 1
        logits, used, *_ = model.infer(answers.images())
        assert used.tolist() == answers.num_experts.tolist()
        assert abs(logits - torch.tensor(answers.routed)).max() < 1e-4
    model.test_cfg.update(mode='ensemble', expert_logits=True)
    ensemble, _, logits, _ = model.infer(answers.images())
    assert abs(logits - torch.tensor(answers.logits)).max() < 1e-4
    assert abs(ensemble - torch.tensor(answers.ensemble)).max() < 1e-4

    again, back = to_official(state)
    assert again == network and same(back, official)
