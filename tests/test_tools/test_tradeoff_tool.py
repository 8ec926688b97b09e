import json

import numpy as np
import pytest
import torch
from conftest import load_tool
from mmengine.config import Config
from mmpretrain.structures import DataSample
from prediction_files import write_predictions

from ride_mm.analysis import RoutingSimulator
from ride_mm.analysis.predictions import read_own_predictions
from ride_mm.analysis.routing.tradeoff import threshold_text
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.utils.errors import UserError

TOOL = 'tools/analysis/tradeoff.py'
CONFIG = 'configs/ride_r32_digits_lt.py'
COUNTS = [500, 300, 200, 150, 90, 60, 40, 10, 8, 5]


@pytest.fixture
def tool():
    module = load_tool(TOOL)
    return lambda *args: module.main(list(map(str, args)))


@pytest.fixture
def predictions(root, tmp_path):
    return write(root, tmp_path, split='test')


@pytest.fixture
def held_out(root, tmp_path):
    return write(root, tmp_path, split='val')


def write(root, tmp_path, **options):
    run = dict(
        **options,
        config=str(root / CONFIG),
        options={'model.head.router.topk': 7},
        checkpoint='epoch_45.pth',
        class_counts=COUNTS,
    )
    generator = torch.Generator().manual_seed(0)
    samples = []
    for index in range(60):
        logits = torch.randn(3, 10, generator=generator)
        sample = DataSample().set_gt_label(index % 10)
        sample.set_pred_score(logits.mean(0).softmax(0))
        sample.expert_logits = logits
        sample.router_logits = torch.randn(2, generator=generator)
        sample.routed_compute = torch.tensor([0.6, 0.8, 1.0], dtype=torch.float64)
        samples.append(sample.to_dict())
    path = tmp_path / 'predictions.npz'
    write_predictions(path, samples, **run)
    return path


@pytest.mark.parametrize('per_router', [False, True])
def test_chosen_threshold_goes_into_a_config(tool, predictions, root, tmp_path, per_router, capsys):
    out, figures = tmp_path / 'cheap.py', tmp_path / 'new' / 'figures.json'
    plot = tmp_path / 'tradeoff.png'
    tool(
        predictions,
        '--budget',
        0.75,
        '--out-config',
        out,
        '--json',
        figures,
        '--plot',
        plot,
        '--config',
        root / CONFIG,
        '--cfg-options',
        'model.head.router.topk=7',
        *(['--per-router'] if per_router else []),
    )
    chosen = json.loads(figures.read_text())['marked']['chosen']
    assert chosen['compute'] <= 0.75
    cfg = Config.fromfile(out)
    assert cfg.model.head.router.topk == 7
    assert cfg.model.test_cfg.mode == 'route'
    threshold = cfg.model.test_cfg.threshold
    assert threshold == chosen['threshold']
    simulator = RoutingSimulator(read_own_predictions(predictions), ClassGroups(COUNTS))
    point = simulator.at(np.broadcast_to(threshold, 2))
    assert point.compute == pytest.approx(chosen['compute'])
    assert point.accuracy == pytest.approx(chosen['accuracy'])
    assert plot.read_bytes().startswith(b'\x89PNG')
    out_text = capsys.readouterr().out
    assert 'chosen' in out_text and f'{chosen["compute"]:.4f}' in out_text
    with pytest.raises(UserError, match='--out-config .* not overwritten'):
        tool(predictions, '--budget', 0.75, '--out-config', out, '--config', root / CONFIG)


@pytest.mark.parametrize('option', ['--max-loss', '--max-disagreement'])
def test_guaranteed_threshold(tool, held_out, root, tmp_path, option, capsys):
    out, figures = tmp_path / 'cheap.py', tmp_path / 'figures.json'
    options = ['--cfg-options', 'model.head.router.topk=7']
    tool(held_out, option, 0.9, '--config', root / CONFIG, '--out-config', out, *options)
    (threshold,) = set(Config.fromfile(out).model.test_cfg.threshold)
    assert 0 < threshold <= 1
    told = ' '.join(capsys.readouterr().out.split())
    words = 'lose at most 0.9 of the accuracy of all experts with a probability of 0.9'
    if option == '--max-disagreement':
        words = 'At most 0.9 of new images have another answer than that of all experts with a'
    assert words in told
    tool(held_out, option, 0.9, '--confidence', 0.5, '--json', figures)
    chosen = json.loads(figures.read_text())['marked']['chosen']
    assert chosen['threshold'][0] >= threshold
    with pytest.raises(UserError, match=r'are too few for a limit of 0\.01'):
        tool(held_out, option, 0.01)


@pytest.mark.parametrize(
    'threshold, text',
    [
        (0.5, '0.5'),
        ([0.25, 1e-7], '0.25, 1e-07'),
        (1 - 2**-30, '1 - 9.31e-10'),
        ([0.0, 1.0], '0, 1'),
    ],
)
def test_thresholds_can_be_told_apart(threshold, text):
    assert threshold_text(threshold) == text


def test_no_config_of_the_file_is_run(tool, predictions, root, tmp_path, capsys):
    """The written config is the user's, without options of the predictions
    file that could name what is built."""
    out = tmp_path / 'cheap.py'
    with pytest.raises(SystemExit):
        tool(predictions, '--budget', 0.75, '--out-config', out)
    assert '--out-config and --config need each other' in (capsys.readouterr().err)
    with pytest.raises(UserError, match='model.head.router.topk=7, which is'):
        tool(predictions, '--budget', 0.75, '--out-config', out, '--config', root / CONFIG)
    assert not out.exists()


def test_mistakes(tool, predictions, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool(predictions, '--per-router')
    assert '--per-router needs --budget or --accuracy' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool(predictions, '--per-router', '--max-loss', 0.1)
    assert '--per-router needs --budget or --accuracy' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool(predictions, '--out-config', tmp_path / 'new.py', '--config', CONFIG)
    assert '--out-config needs --budget, --accuracy, --max-loss' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool(predictions, '--each-group', '--budget', 0.7)
    assert '--each-group needs --max-loss' in capsys.readouterr().err
    with pytest.raises(UserError, match='predictions of the test set, which must not be'):
        tool(predictions, '--max-loss', 0.1)
    with pytest.raises(UserError, match='below the minimum'):
        tool(predictions, '--budget', 0.1)
    with pytest.raises(UserError, match='the name of a plot must end in'):
        tool('absent.npz', '--plot', 'tradeoff.jpeg')
    with pytest.raises(UserError, match='no predictions file'):
        tool(tmp_path / 'absent.npz')
