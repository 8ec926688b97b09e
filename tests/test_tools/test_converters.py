"""Official checkpoints: files that are read, and written back."""

import os
import pickle
import sys
import types
from collections import OrderedDict

import official_to_ride_mm
import pytest
import ride_mm_to_official
import torch
from draws import Answers
from mmengine.config import Config
from mmpretrain.registry import MODELS
from official_format import to_ours

from ride_mm.utils.errors import UserError


def same(found, expected):
    """Whether two state dicts are equal, bit for bit."""
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in expected
    )


@pytest.fixture
def official():
    """The weights of a routed ResNet-32."""
    return Answers.load('r32_ea').draw()


@pytest.fixture
def convert(tmp_path):
    """Save what a file holds, convert it and load the result."""

    def run(content, **kwargs):
        src, dst = str(tmp_path / 'src.pth'), str(tmp_path / 'dst.pth')
        torch.save(content, src, **kwargs)
        official_to_ride_mm.main([src, dst, '--overwrite'])
        return torch.load(dst, map_location='cpu')['state_dict']

    return run


def altered(state, change):
    state = OrderedDict(state)
    change(state)
    return state


@pytest.mark.parametrize(
    'key',
    [
        'backbone.bn1.running_var',
        'backbone.layer1.4.conv2.weight',
        'backbone.layer3s.2.0.bn2.num_batches_tracked',
        'backbone.layer3s.0.0.bn2.weight',
        'backbone.linears.1.weight',
        'backbone.expert_help_pred_hidden_fcs.1.bias',
        'backbone.expert_help_pred_fc.weight',
    ],
)
def test_every_key_is_needed(official, key):
    with pytest.raises(UserError, match=f'it lacks {key}$'):
        to_ours(altered(official, lambda state: state.pop(key)))


@pytest.mark.parametrize(
    'key',
    [
        'backbone.layer1.4.conv3.weight',
        'backbone.layer2s.0.4.bn3.bias',
        'backbone.linears.1.bias',
        'backbone.expert_help_pred_hidden_fcs.2.weight',
        'backbone.fc.weight',
        'fc.weight',
    ],
)
def test_every_key_is_used(official, key):
    with pytest.raises(UserError, match=f'it has .*{key}'):
        to_ours(altered(official, lambda state: state.update({key: torch.zeros(1)})))


@pytest.mark.parametrize('index', ['7', '999999999', 'x'])
def test_experts_without_a_gap(official, index):
    gap = {key.replace('linears.2.', f'linears.{index}.'): value for key, value in official.items()}
    with pytest.raises(UserError, match='it lacks backbone.linears.2.weight'):
        to_ours(gap)


@pytest.mark.parametrize(
    'key',
    [
        'backbone.layer2s.1.3.conv1.weight',
        'backbone.linears.2.weight',
        'backbone.expert_help_pred_hidden_fcs.0.weight',
        'backbone.layer3s.1.0.bn1.running_mean',
    ],
)
def test_every_shape_matters(official, key):
    shape = tuple(official[key].shape)
    with pytest.raises(UserError) as caught:
        to_ours(altered(official, lambda state: state.update({key: torch.zeros((7,) + shape[1:])})))
    found = (7,) + shape[1:]
    assert str(caught.value) == (f'its {key} has the shape {found}, expected {shape}')


def test_names_of_other_times(official, convert, capsys):
    expected = convert(dict(state_dict=official, epoch=5))
    capsys.readouterr()
    parallel = {f'module.{key}': value for key, value in official.items()}
    assert same(convert(dict(state_dict=parallel)), expected)
    assert '"module." of DataParallel left out' in capsys.readouterr().out

    ensemble = {
        key.replace('expert_help', 'ensemble_help'): value for key, value in parallel.items()
    }
    assert same(convert(dict(state_dict=ensemble)), expected)
    assert 'router under its old name' in capsys.readouterr().out

    uncounted = {key: value for key, value in official.items() if 'num_batches' not in key}
    zeros = convert(dict(state_dict=uncounted))
    assert 'BatchNorm counters missing' in capsys.readouterr().out
    assert zeros.keys() == expected.keys()
    for key, value in zeros.items():
        counts = 'num_batches' in key
        assert torch.equal(value, torch.tensor(0) if counts else expected[key])

    twice = dict(ensemble, **parallel)
    with pytest.raises(UserError, match='it has .* under two names'):
        convert(dict(state_dict=twice))


def test_file_of_an_old_torch_and_a_gpu(official, convert, monkeypatch):
    expected = convert(dict(state_dict=official))
    tag = 'torch.serialization.location_tag'
    monkeypatch.setattr(tag, lambda storage: 'cuda:7')
    for zipped in (True, False):
        found = convert(dict(state_dict=official), _use_new_zipfile_serialization=zipped)
        assert same(found, expected)


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_pickled_objects_are_neither_imported_nor_run(
    official, convert, tmp_path, monkeypatch, capsys
):
    parse_config = types.ModuleType('parse_config')
    monkeypatch.setitem(sys.modules, 'parse_config', parse_config)
    parse_config.ConfigParser = type('ConfigParser', (), dict(__module__='parse_config'))
    config = parse_config.ConfigParser()
    config._config = OrderedDict(n_gpu=1, arch=OrderedDict(type='X'))
    config._save_dir = tmp_path
    marker = tmp_path / 'marker'
    config.resume = Call(exec, f'open({str(marker)!r}, "w").close()')
    content = dict(
        arch='ResNet32EAModel',
        epoch=5,
        state_dict=official,
        optimizer=dict(state={}, param_groups=[dict(lr=0.01)]),
        monitor_best=0.5,
        config=config,
        criterion=OrderedDict(),
    )

    # remembers the module while it is written, and not while it is read
    original = torch.save
    monkeypatch.setattr(
        torch,
        'save',
        lambda *args, **kwargs: (original(*args, **kwargs), sys.modules.pop('parse_config', None)),
    )
    state = convert(content)
    assert same(state, to_ours(official)[1])
    assert 'parse_config' not in sys.modules and not marker.exists()
    assert 'saved after epoch' in capsys.readouterr().out

    content['config'] = Call(os.system, f'touch {marker}')
    with pytest.raises(UserError, match='Refused to load .*system'):
        convert(dict(content, epoch=6))
    assert not marker.exists()


def test_file_of_ride_swin(convert, tmp_path, monkeypatch):
    official = Answers.load('swin_t_2').draw()
    yacs = types.ModuleType('yacs')
    monkeypatch.setitem(sys.modules, 'yacs', yacs)
    yacs.CfgNode = type('CfgNode', (dict,), dict(__module__='yacs'))
    state = convert(dict(model=official, epoch=299, config=yacs.CfgNode(MODEL='swin')))
    assert same(state, to_ours(official)[1])
    back = str(tmp_path / 'back.pth')
    ride_mm_to_official.main([str(tmp_path / 'dst.pth'), back])
    content = torch.load(back)
    assert list(content) == ['model'] and same(content['model'], official)

    key = 'layers.0.branches.0.blocks.1.attn_mask'
    with pytest.raises(UserError, match=f'its {key} differs from'):
        to_ours(dict(official, **{key: -official[key]}))
    official.pop('layers.2.branches.1.blocks.5.attn_mask')
    with pytest.raises(UserError, match='lacks .*branches.1.blocks.5.attn_ma'):
        to_ours(official)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def mmpretrain_resnet(path):
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=512),
        )
    )
    torch.save(dict(meta=dict(), state_dict=model.state_dict()), path)


@pytest.mark.parametrize(
    'make, words',
    [
        (truncate, 'the file is truncated'),
        (lambda path: path.write_text('<html>'), "PyTorch checkpoint: it starts with b'<html>'"),
        (lambda path: path.write_bytes(pickle.dumps([1])), 'not hold a checkpoint'),
        (lambda path: path.unlink(), 'the file does not exist'),
        (
            mmpretrain_resnet,
            'no checkpoint of the official RIDE code.* it has backbone.conv1.weight, ',
        ),
        (lambda path: torch.save([1], path), 'it has no state_dict or model'),
        (lambda path: torch.save(dict(state_dict=dict(a=1)), path), "is 'a', which is no tensor"),
        (
            lambda path: torch.save(
                dict(state_dict=to_ours(torch.load(path)['state_dict'])[1]), path
            ),
            'already a checkpoint of ride_mm',
        ),
    ],
)
def test_other_files(official, tmp_path, make, words):
    src = tmp_path / 'src.pth'
    torch.save(dict(state_dict=official), src)
    make(src)
    with pytest.raises(UserError, match=words) as caught:
        official_to_ride_mm.main(
            [str(src), str(tmp_path / 'dst.pth'), '--config-out', str(tmp_path / 'c.py')]
        )
    assert str(src) in str(caught.value) and '\n' not in str(caught.value)
    assert not set(os.listdir(tmp_path)) - {'src.pth'}


def test_networks_that_have_no_place(official):
    own = {key.replace('pred_fc.', 'pred_fcs.0.'): value for key, value in official.items()}
    with pytest.raises(UserError, match='share_expert_help_pred_fc=False'):
        to_ours(own)
    shallow = {key: value for key, value in official.items() if 'layer1.4' not in key}
    with pytest.raises(UserError, match=r'stages have \(4, 5, 5\) blocks'):
        to_ours(shallow)


def test_shared_third_stage_of_another_width():
    answers = Answers.load('r10_shared')
    weights = answers.draw()
    to_ours(weights)
    weights['backbone.layer3.0.bn2.weight'] = torch.ones(192)
    with pytest.raises(UserError, match='share_layer3=True.* 192 .* has 256'):
        to_ours(weights)


def test_nothing_is_overwritten_or_half_written(official, tmp_path, monkeypatch):
    src, dst, config = (tmp_path / name for name in ('src.pth', 'dst.pth', 'c.py'))
    torch.save(dict(state_dict=official), src)
    arguments = [str(src), str(dst), '--config-out', str(config)]
    for path in (dst, config):
        path.write_text('mine')
        with pytest.raises(UserError, match=f'{path} exists.* --overwrite'):
            official_to_ride_mm.main(arguments)
        assert path.read_text() == 'mine'
        assert len(os.listdir(tmp_path)) == 2
        path.unlink()

    with monkeypatch.context() as context:
        context.setattr(os, 'fsync', lambda file: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            official_to_ride_mm.main(arguments)
    assert os.listdir(tmp_path) == ['src.pth']

    dst.write_text('old')
    official_to_ride_mm.main(arguments + ['--overwrite'])
    assert 'state_dict' in torch.load(dst)
    assert sorted(os.listdir(tmp_path)) == ['c.py', 'dst.pth', 'src.pth']


def test_back_and_forth_through_files(official, tmp_path, capsys):
    src, dst, back, again = (str(tmp_path / f'{i}.pth') for i in range(4))
    torch.save(dict(state_dict=official), src)
    official_to_ride_mm.main([src, dst])
    ride_mm_to_official.main([dst, back])
    content = torch.load(back)
    assert content['arch'] == 'ResNet32EAModel'
    assert same(content['state_dict'], official)
    assert '"top_choices_num": 5' in capsys.readouterr().out
    official_to_ride_mm.main([back, again])
    assert same(torch.load(again)['state_dict'], torch.load(dst)['state_dict'])
    with pytest.raises(UserError, match=f'{back} exists'):
        ride_mm_to_official.main([dst, back])
    with pytest.raises(UserError, match=f'^{src}: it is no checkpoint of ri'):
        ride_mm_to_official.main([src, str(tmp_path / 'x.pth')])


@pytest.mark.parametrize('updates', [0, 7])
def test_router_goes_back_if_trained(tiny_model, tmp_path, updates):
    tiny_model.backbone.depth = tiny_model.neck.expert.depth = 32
    model = MODELS.build(tiny_model)
    model.head.router.num_updates.fill_(updates)
    src, dst = str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')
    torch.save(dict(state_dict=model.state_dict()), src)
    ride_mm_to_official.main([src, dst])
    content = torch.load(dst)
    assert content['arch'] == f'ResNet32{"EA" if updates else ""}Model'
    assert any('help_pred' in key for key in content['state_dict']) == (updates > 0)


@pytest.mark.parametrize(
    'change, words',
    [
        (
            dict(backbone=dict(depth=20), neck=dict(expert=dict(depth=20))),
            'the official code has no ResNet20EAModel',
        ),
        (
            dict(backbone=dict(shortcut='B'), neck=dict(expert=dict(shortcut='B'))),
            'it has .*layer2.0.downsample',
        ),
    ],
)
def test_networks_the_official_code_has_not(tiny_model, tmp_path, change, words):
    tiny_model.backbone.depth = tiny_model.neck.expert.depth = 32
    cfg = Config(dict(model=tiny_model))
    cfg.merge_from_dict(dict(model=change))
    model = MODELS.build(cfg.model)
    model.head.router.num_updates.fill_(1)
    src, dst = str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')
    torch.save(dict(state_dict=model.state_dict()), src)
    with pytest.raises(UserError, match=words):
        ride_mm_to_official.main([src, dst])
    assert not os.path.exists(dst)


def test_backbone_the_official_code_has_not(tmp_path):
    src = str(tmp_path / 'a.pth')
    state = {'backbone.cls_token': 0, 'neck.experts.0.layers.8.ln1.bias': 0}
    torch.save(dict(state_dict={key: torch.ones(1) for key in state}), src)
    with pytest.raises(UserError, match='no network with the keys backbone.c'):
        ride_mm_to_official.main([src, str(tmp_path / 'b.pth')])
