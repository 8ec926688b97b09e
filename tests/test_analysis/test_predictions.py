import json
import pickle

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from ride_mm.analysis import read_predictions
from ride_mm.analysis.predictions import read_own_predictions
from ride_mm.evaluation import DumpPredictions
from ride_mm.utils.errors import UserError


def make_sample(gt_label=1, **fields):
    sample = DataSample(metainfo=dict(img_path='a.png'))
    sample.set_gt_label(gt_label).set_pred_score(torch.tensor([0.2, 0.3, 0.5]))
    for name, value in fields.items():
        setattr(sample, name, value)
    return sample.to_dict()


def make_run(**changes):
    run = dict(
        config='c.py',
        options={},
        checkpoint='e.pth',
        split='val',
        prior=[2, 1.5, 0],
        set_thresholds=None,
        weights='0123456789abcdef',
        num_experts=None,
        classes=['a', 'b', 'c'],
        class_counts=[3, 2, 1],
        thresholds=(20, 100),
    )
    return dict(run, **changes)


def write(path, run='', **changes):
    """A file with all fields that a test of a RIDE model writes; None removes one."""
    fields = dict(
        gt_label=[0, 2],
        pred_score=[[0.2, 0.3, 0.5]] * 2,
        num_experts_used=[1, 2],
        relative_compute=[0.6, 1.1],
        expert_logits=np.ones((2, 2, 3)),
        router_logits=np.ones((2, 1)),
        routed_compute=[[0.6, 1.1]] * 2,
        run=json.dumps(run or make_run()) if isinstance(run, dict) or run == '' else run,
    )
    fields.update(changes)
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'predictions.npz'


def test_reads_what_a_test_run_writes(file):
    run = make_run(options={'a.b': (1, 2.5)}, num_experts=2)
    dump = DumpPredictions(str(file), run)
    torch.manual_seed(0)
    logits, routers = torch.rand(4, 2, 3), torch.rand(4, 1)
    compute = torch.tensor([0.6, 1.1], dtype=torch.float64)
    for i in range(4):
        fields = dict(expert_logits=logits[i], router_logits=routers[i], routed_compute=compute)
        used = dict(num_experts_used=i % 2 + 1, relative_compute=float(compute[i % 2]))
        dump.process(None, [make_sample(i % 3, **fields, **used)])
    assert dump.evaluate(4) == {}

    predictions = read_own_predictions(file, experts=True)
    assert len(predictions) == 4
    assert predictions.gt_label.tolist() == [0, 1, 2, 0]
    assert predictions.pred_label.tolist() == [2] * 4
    assert predictions.hits.tolist() == [False, False, True, False]
    assert predictions.num_classes == 3
    assert predictions.num_experts_used.tolist() == [1, 2, 1, 2]
    assert predictions.relative_compute.tolist() == [0.6, 1.1] * 2
    assert (predictions.expert_logits == logits.transpose(0, 1).numpy()).all()
    assert (predictions.router_logits == routers.T.numpy()).all()
    assert predictions.routed_compute.tolist() == [0.6, 1.1]
    assert predictions.run == dict(run, options={'a.b': [1, 2.5]})


def test_model_without_experts_in_half_precision(file):
    dump = DumpPredictions(str(file), make_run())
    sample = make_sample()
    sample['pred_score'] = sample['pred_score'].bfloat16()
    dump.process(None, [sample])
    dump.evaluate(1)
    predictions = read_predictions(file)
    assert predictions.pred_score.dtype == np.float32
    assert predictions.num_experts_used is None
    assert predictions.relative_compute is None
    with pytest.raises(UserError, match='test.py c.py e.pth --all-experts'):
        read_own_predictions(file, experts=True)


def test_images_with_several_labels_are_refused_at_once(file):
    dump = DumpPredictions(str(file), make_run())
    for sample in (make_sample([0, 1]), {'pred_score': torch.ones(3) / 3, 'img_path': 'a.png'}):
        with pytest.raises(UserError, match='exactly one label, but a.png'):
            dump.process(None, [sample])


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(class_counts=None), 'c.py states the number of training'),
        (dict(class_counts=[1, 2]), '3 classes.*counts of 2'),
    ],
)
def test_runs_without_class_counts(file, changes, message):
    write(file, make_run(**changes))
    with pytest.raises(UserError, match=message):
        read_own_predictions(file)


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('gt_label', None, 'has no `gt_label`'),
        ('pred_score', None, 'has no `pred_score`'),
        ('run', None, 'has no `run`'),
        ('relative_compute', None, 'only one of `num_experts_used` and `relative_compute`'),
        ('routed_compute', None, 'only one of `router_logits` and `routed_compute`'),
        ('expert_logits', None, '`router_logits` but no `expert_logits`'),
        ('gt_label', [0, 3], '`gt_label` of image 1 is 3, expected a whole number from 0 to 2'),
        ('gt_label', [-1, 0], 'image 0 is -1, expected'),
        ('gt_label', [0.0, 1.0], 'float64 of shape .2,., expected whole numbers'),
        ('gt_label', ['cat', 'dog'], 'expected whole numbers of shape .N. with N = 2'),
        ('gt_label', [], r'shape \(0,\), expected'),
        ('gt_label', 3, r'shape \(\), expected'),
        ('gt_label', [True, False], 'is bool'),
        ('pred_score', [[0.2, 0.8]], r'shape \(1, 2\), expected .*N = 2'),
        ('pred_score', [[1.2, -0.2, 0]] * 2, 'probabilities from 0 to 1'),
        ('pred_score', [[0.2, 0.2, 0.2]] * 2, 'probabilities that sum to 1'),
        ('pred_score', [[1, 0, 0]] * 2, 'int64.*expected real numbers'),
        ('num_experts_used', [1, 99], 'image 1 is 99, expected a number from 1 to 2'),
        ('num_experts_used', [0, 1], 'image 0 is 0, expected'),
        ('relative_compute', [1.0, np.nan], 'image 1 is nan, expected finite numbers'),
        ('relative_compute', [1.0, -0.5], 'image 1 is -0.5, expected a number above 0'),
        ('expert_logits', np.ones((2, 2, 4)), 'K = 3'),
        ('expert_logits', np.ones((2, 3)), r'shape \(2, 3\).*\(N, E, K\)'),
        ('expert_logits', np.full((2, 2, 3), np.inf), r'\[inf, inf, inf, inf, ...\].*finite'),
        ('router_logits', np.ones((2, 2)), 'R = 1'),
        ('routed_compute', [[0.5]] * 2, 'E = 2'),
        ('routed_compute', [[0.9, 0.5]] * 2, 'increasing numbers'),
        ('routed_compute', [[-0.9, 0.5]] * 2, 'increasing numbers'),
        ('routed_compute', [[0.5, 1.0], [0.6, 1.0]], 'these images differ in size'),
        ('run', '[]', r'`run` is \[\], expected a dict'),
        ('run', '{"config": "a\\nb"}', 'without control characters'),
        ('run', '{', '`run` is not JSON'),
    ],
)
def test_wrong_fields(file, field, value, message):
    assert read_predictions(write(file)).num_experts_used.tolist() == [1, 2]
    write(file, **{field: value})
    with pytest.raises(UserError, match=message) as info:
        read_predictions(file)
    assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('config', None, 'expected the path of a config'),
        ('options', [1], 'expected a dict'),
        ('checkpoint', 3, 'expected the path of a checkpoint'),
        ('weights', 3, 'expected a string or None'),
        ('classes', 'abc', 'expected a list of names'),
        ('class_counts', [1, -2, 3], 'expected a list of whole numbers'),
        ('class_counts', [0, 0, 0], 'not all 0'),
        ('class_counts', 7, 'expected a list of whole numbers'),
        ('thresholds', (100, 20), 'expected two class sizes'),
        ('thresholds', 'rides', 'expected two class sizes'),
        ('num_experts', 99, 'expected a whole number from 1 to 64'),
    ],
)
def test_wrong_run(file, key, value, message):
    run = make_run(**{key: value})
    with pytest.raises(UserError, match=f'`run` has {key}=.*{message}'):
        read_predictions(write(file, run))
    del run[key]
    with pytest.raises(UserError, match=f'`run` has no `{key}`, expected'):
        read_predictions(write(file, run))


def test_number_of_experts(file):
    """It is that of the logits or of the run, or at least not absurd."""
    without = dict(expert_logits=None, router_logits=None, routed_compute=None)
    write(file, num_experts_used=[5, 5], **without)
    assert read_predictions(file).num_experts_used.tolist() == [5, 5]
    with pytest.raises(UserError, match='from 1 to 3'):
        read_predictions(write(file, make_run(num_experts=3), num_experts_used=[5, 5], **without))
    with pytest.raises(UserError, match='from 1 to 64'):
        read_predictions(write(file, num_experts_used=[10**9] * 2, **without))


def test_wrong_files(tmp_path, file):
    with pytest.raises(UserError, match='no predictions file.*test.py .*absent.npz'):
        read_predictions(tmp_path / 'absent.pkl')
    whole = write(file).read_bytes()
    np.save(tmp_path / 'a.npy', np.ones(3))
    array = (tmp_path / 'a.npy').read_bytes()
    for content in (b'', b'no archive', pickle.dumps([1] * 1000), whole[:-20], array):
        file.write_bytes(content)
        with pytest.raises(UserError, match='not a file of predictions: it is not an .npz file'):
            read_predictions(file)
    file.write_bytes(whole.replace(b'NUMPY', b'MUNPY'))
    with pytest.raises(UserError, match='not a file of predictions'):
        read_predictions(file)


class Attack:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_file_cannot_run_code(tmp_path, file):
    trace = tmp_path / 'trace'
    with pytest.raises(UserError, match='not a file of predictions'):
        read_predictions(write(file, gt_label=np.array([Attack(trace)], dtype=object)))
    file.write_bytes(pickle.dumps([Attack(trace)]))
    with pytest.raises(UserError, match='not a file of predictions'):
        read_predictions(file)
    assert not trace.exists()
