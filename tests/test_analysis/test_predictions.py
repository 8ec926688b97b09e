import pickle

import mmengine
import numpy as np
import pytest
import torch
from mmengine.evaluator import DumpResults
from mmpretrain.structures import DataSample

from ride_mm.analysis import read_own_predictions, read_predictions
from ride_mm.evaluation import DumpPredictions
from ride_mm.utils.errors import UserError


def make_sample(gt_label=1, **fields):
    sample = DataSample(
        metainfo=dict(
            img_path='a.png',
            img_shape=(32, 32),
            scale_factor=np.array([1.0, 2.0], dtype=np.float32),
            sample_idx=np.int64(3),
        )
    )
    sample.set_gt_label(gt_label).set_pred_score(torch.tensor([0.2, 0.3, 0.5]))
    sample.set_pred_label(0)
    for name, value in fields.items():
        setattr(sample, name, value)
    return sample.to_dict()


def make_run(**changes):
    run = dict(
        config='c.py',
        options={},
        checkpoint='e.pth',
        weights='0123456789abcdef',
        classes=['a', 'b', 'c'],
        class_counts=[3, 2, 1],
        thresholds=(20, 100),
    )
    return dict(run, **changes)


def test_reads_what_a_test_run_dumps(tmp_path):
    file = tmp_path / 'predictions.pkl'
    dump = DumpResults(str(file))
    dump.process(
        None,
        [
            make_sample(num_experts_used=torch.tensor(2), relative_compute=torch.tensor(0.75)),
            make_sample(2, num_experts_used=3, relative_compute=1.0),
        ],
    )
    dump.evaluate(2)

    predictions = read_predictions(file)
    assert len(predictions) == 2
    assert predictions.gt_label.tolist() == [1, 2]
    assert predictions.pred_label.tolist() == [2, 2]  # of the scores
    assert predictions.num_classes == 3
    assert predictions.num_experts_used.tolist() == [2, 3]
    assert predictions.relative_compute.tolist() == [0.75, 1.0]


def test_reads_what_made_them_and_what_experts_say(tmp_path):
    file = tmp_path / 'predictions.pkl'
    run = make_run()
    dump = DumpPredictions(str(file), run)
    torch.manual_seed(0)
    logits, routers = torch.rand(4, 2, 3), torch.rand(4, 1)
    compute = torch.tensor([0.6, 1.1], dtype=torch.float64)
    for experts, router in zip(logits, routers):
        dump.process(
            None, [make_sample(expert_logits=experts, router_logits=router, routed_compute=compute)]
        )
    dump.evaluate(4)

    predictions = read_own_predictions(file, experts=True)
    assert predictions.run == run
    assert torch.equal(torch.from_numpy(predictions.expert_logits).transpose(0, 1), logits)
    assert (predictions.router_logits == routers.T.numpy()).all()
    assert predictions.routed_compute.tolist() == compute.tolist()
    assert predictions.hits.tolist() == [False] * 4
    # written once for all images
    assert file.read_bytes().count(b'e.pth') == 1


@pytest.mark.parametrize(
    'run, message',
    [
        (None, 'does not say which run'),
        (make_run(class_counts=None), 'c.py states the number of training'),
        (make_run(class_counts=[1, 2]), '3 classes.*counts of 2'),
        (make_run(), 'test.py c.py e.pth --all-experts'),
    ],
)
def test_predictions_of_another_make(tmp_path, run, message):
    file = tmp_path / 'predictions.pkl'
    sample = make_sample() if run is None else dict(make_sample(), run=run)
    mmengine.dump([sample], str(file))
    with pytest.raises(UserError, match=message):
        read_own_predictions(file, experts=True)


def test_scores_that_are_no_numbers_name_the_image(tmp_path):
    file = tmp_path / 'predictions.pkl'
    sample = make_sample()
    sample['pred_score'][1] = float('nan')
    mmengine.dump([make_sample(), sample], str(file))
    with pytest.raises(UserError, match='`pred_score` of a.png'):
        read_predictions(file)


def test_compute_that_differs(tmp_path):
    file = tmp_path / 'predictions.pkl'
    samples = [
        make_sample(
            expert_logits=torch.ones(2, 3),
            router_logits=torch.ones(1),
            routed_compute=torch.tensor([c, 1.0]),
        )
        for c in (0.5, 0.6)
    ]
    mmengine.dump(samples, str(file))
    with pytest.raises(UserError, match='these images differ in size'):
        read_predictions(file)


def test_model_without_experts_or_scores(tmp_path):
    file = tmp_path / 'predictions.pkl'
    sample = make_sample()
    del sample['pred_score']
    mmengine.dump([sample], str(file))
    predictions = read_predictions(file)
    assert predictions.pred_label.tolist() == [0]
    assert predictions.num_classes is None
    assert predictions.num_experts_used is None
    assert predictions.relative_compute is None


@pytest.mark.parametrize(
    'content, message',
    [
        ({'long_tail/overall': 50.0}, 'a dict instead of a list'),
        ([], 'an empty list'),
        ([1, 2], 'entry 0 is a int'),
        ([{'gt_label': torch.tensor([0])}], 'neither `pred_score`'),
        ([{'pred_label': torch.tensor([0])}], 'gt_label'),
        ([make_sample([0, 1])], 'exactly one true label'),
        ([make_sample(num_experts_used=1)], 'only one of `num_experts_used`'),
        ([make_sample(), make_sample(extra=1)], 'differ: only one has `extra`'),
        (
            [make_sample(), dict(make_sample(), pred_score=torch.ones(9))],
            r'`pred_score` of a.png is .* of shape \(9,\).*expected .*\(3,\)',
        ),
    ],
)
def test_wrong_content(tmp_path, content, message):
    file = tmp_path / 'predictions.pkl'
    mmengine.dump(content, str(file))
    with pytest.raises(UserError, match=message):
        read_predictions(file)


def of_experts(**changes):
    """A sample with all fields that a test of a RIDE model writes."""
    fields = dict(
        num_experts_used=2,
        relative_compute=1.0,
        expert_logits=torch.ones(2, 3),
        router_logits=torch.ones(1),
        routed_compute=torch.tensor([0.6, 1.1], dtype=torch.float64),
        run=make_run(),
    )
    return dict(make_sample(), **dict(fields, **changes))


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('gt_label', 3, 'is 3, expected a whole number from 0 to 2'),
        ('gt_label', torch.tensor([-1]), 'is -1, expected'),
        ('gt_label', 1.0, 'is 1.0, expected a whole number'),
        ('gt_label', 'cat', "is 'cat', expected a whole number"),
        ('pred_score', 'high', "is 'high', expected a tensor"),
        ('pred_score', torch.tensor([2, 0, 0]), 'int64, expected real numbers'),
        ('pred_score', torch.tensor([1.2, -0.2, 0]), 'probabilities, from 0 to 1'),
        ('pred_score', torch.tensor([0.2, 0.2, 0.2]), 'probabilities, whose sum'),
        ('num_experts_used', 99, 'is 99, expected a whole number from 1 to 2'),
        ('num_experts_used', 0, 'is 0, expected'),
        ('num_experts_used', True, 'is True, expected a whole number'),
        ('relative_compute', float('nan'), 'is nan, expected a number above 0'),
        ('relative_compute', -0.5, 'is -0.5, expected a number above 0'),
        ('relative_compute', None, 'is None, expected a number'),
        ('expert_logits', torch.ones(2, 4), r'shape \(2, 4\).*of 3 classes'),
        ('expert_logits', torch.ones(3), 'expected real numbers in 2 dimensions'),
        ('expert_logits', torch.full((2, 3), torch.inf), 'finite numbers'),
        ('router_logits', torch.ones(2), 'expected 1 numbers, for 2 experts'),
        ('router_logits', torch.tensor([torch.nan]), 'finite numbers'),
        ('routed_compute', torch.tensor([0.5]), 'expected 2 numbers, for 2'),
        ('routed_compute', torch.tensor([0.9, 0.5]), 'increasing numbers'),
        ('routed_compute', torch.tensor([-0.9, 0.5]), 'increasing numbers'),
        ('run', [], 'is an empty list, expected a dict'),
    ],
)
def test_wrong_fields(tmp_path, field, value, message):
    """In whichever image it is, one line names it."""
    file = tmp_path / 'predictions.pkl'
    mmengine.dump([of_experts()], str(file))
    assert read_predictions(file).num_experts_used.tolist() == [2]
    everywhere = ('expert_logits', 'router_logits', 'routed_compute')
    first = {field: value} if field in everywhere else {}
    mmengine.dump([of_experts(**first), of_experts(**{field: value})], str(file))
    with pytest.raises(UserError, match=f'`{field}`.*{message}') as info:
        read_predictions(file)
    assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('config', None, 'expected the path of a config'),
        ('config', 'a\nb', 'expected the path of a config'),
        ('options', {'a': torch.ones(1)}, 'expected a dict of plain values'),
        ('options', {1: 2}, 'expected a dict of plain values'),
        ('checkpoint', 3, 'expected the path of a checkpoint'),
        ('weights', 3, 'expected a text or None'),
        ('classes', 'abc', 'expected a list of names'),
        ('class_counts', [1, -2, 3], 'expected a list of whole numbers'),
        ('class_counts', [0, 0, 0], 'not all 0'),
        ('class_counts', 7, 'expected a list of whole numbers'),
        ('thresholds', (100, 20), 'expected two class sizes'),
        ('thresholds', 'rides', 'expected two class sizes'),
        ('num_experts', 99, 'expected a whole number from 1 to 64'),
    ],
)
def test_wrong_run(tmp_path, key, value, message):
    file = tmp_path / 'predictions.pkl'
    run = make_run(**{key: value})
    content = [of_experts(), of_experts(run=run)]
    mmengine.dump(content, str(file))
    with pytest.raises(UserError, match=f'`run` has {key}=.*{message}'):
        read_predictions(file)
    if key == 'num_experts':  # which older versions did not write
        return
    del run[key]
    mmengine.dump(content, str(file))
    with pytest.raises(UserError, match=f'`run` has no `{key}`, expected'):
        read_predictions(file)


def test_experts_without_their_logits(tmp_path):
    """The number of experts is what the run says, or not absurd."""
    file = tmp_path / 'predictions.pkl'
    sample = make_sample(num_experts_used=5, relative_compute=1.0)
    mmengine.dump([sample], str(file))
    assert read_predictions(file).num_experts_used.tolist() == [5]
    mmengine.dump([dict(sample, run=make_run(num_experts=3))], str(file))
    with pytest.raises(UserError, match='from 1 to 3'):
        read_predictions(file)
    mmengine.dump([dict(sample, num_experts_used=10**9)], str(file))
    with pytest.raises(UserError, match='from 1 to 64'):
        read_predictions(file)


def test_two_runs_in_a_file(tmp_path):
    file = tmp_path / 'predictions.pkl'
    other = of_experts(run=make_run(checkpoint='f.pth'))
    mmengine.dump([of_experts(), of_experts(), other], str(file))
    with pytest.raises(UserError, match='`run` of entries 0 and 2 differ'):
        read_predictions(file)


def test_half_precision(tmp_path):
    file = tmp_path / 'predictions.pkl'
    logits = torch.ones(2, 3, dtype=torch.bfloat16)
    mmengine.dump([of_experts(expert_logits=logits)], str(file))
    assert read_predictions(file).expert_logits.dtype == np.float32


def test_wrong_files(tmp_path):
    with pytest.raises(UserError, match='no predictions file.*test.py'):
        read_predictions(tmp_path / 'absent.pkl')
    file = tmp_path / 'predictions.pkl'
    for content in (b'', b'not a pickle', pickle.dumps([1] * 1000)[:-20]):
        file.write_bytes(content)
        with pytest.raises(UserError, match='not a file of predictions'):
            read_predictions(file)


class Attack:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_file_cannot_run_code(tmp_path):
    file, trace = tmp_path / 'predictions.pkl', tmp_path / 'trace'
    file.write_bytes(pickle.dumps([Attack(trace)]))
    with pytest.raises(UserError, match='not a file of predictions.*io.open'):
        read_predictions(file)

    class Storage:
        """The same, one pickle deeper: where a tensor keeps its numbers."""

        def __reduce__(self):
            inner = tmp_path / 'inner'
            torch.save(Attack(trace), inner, _use_new_zipfile_serialization=False)
            return torch.storage._load_from_bytes, (inner.read_bytes(),)

    file.write_bytes(pickle.dumps([Storage()]))
    with pytest.raises(UserError, match='not a file of predictions'):
        read_predictions(file)
    assert not trace.exists()
