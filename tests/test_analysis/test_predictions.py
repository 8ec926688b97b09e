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
            scale_factor=np.array([1., 2.], dtype=np.float32),
            sample_idx=np.int64(3)))
    sample.set_gt_label(gt_label).set_pred_score(torch.tensor([.2, .3, .5]))
    sample.set_pred_label(0)
    for name, value in fields.items():
        setattr(sample, name, value)
    return sample.to_dict()


def test_reads_what_a_test_run_dumps(tmp_path):
    file = tmp_path / 'predictions.pkl'
    dump = DumpResults(str(file))
    dump.process(None, [
        make_sample(
            num_experts_used=torch.tensor(2),
            relative_compute=torch.tensor(.75)),
        make_sample(2, num_experts_used=3, relative_compute=1.),
    ])
    dump.evaluate(2)

    predictions = read_predictions(file)
    assert len(predictions) == 2
    assert predictions.gt_label.tolist() == [1, 2]
    assert predictions.pred_label.tolist() == [2, 2]  # of the scores
    assert predictions.num_classes == 3
    assert predictions.num_experts_used.tolist() == [2, 3]
    assert predictions.relative_compute.tolist() == [.75, 1.]


def test_reads_what_made_them_and_what_experts_say(tmp_path):
    file = tmp_path / 'predictions.pkl'
    run = dict(config='c.py', checkpoint='e.pth', class_counts=[3, 2, 1])
    dump = DumpPredictions(str(file), run)
    torch.manual_seed(0)
    logits, routers = torch.rand(4, 2, 3), torch.rand(4, 1)
    compute = torch.tensor([.6, 1.1], dtype=torch.float64)
    for experts, router in zip(logits, routers):
        dump.process(None, [
            make_sample(
                expert_logits=experts,
                router_logits=router,
                routed_compute=compute)
        ])
    dump.evaluate(4)

    predictions = read_own_predictions(file, experts=True)
    assert predictions.run == run
    assert torch.equal(
        torch.from_numpy(predictions.expert_logits).transpose(0, 1), logits)
    assert (predictions.router_logits == routers.T.numpy()).all()
    assert predictions.routed_compute.tolist() == compute.tolist()
    assert predictions.hits.tolist() == [False] * 4
    # written once for all images
    assert file.read_bytes().count(b'e.pth') == 1


@pytest.mark.parametrize('run, message', [
    (None, 'does not say which run'),
    (dict(config='c.py', class_counts=None), 'c.py knows the training'),
    (dict(config='c.py', class_counts=[1, 2]), '3 classes.*counts of 2'),
    (dict(config='c.py', checkpoint='e.pth', class_counts=[1, 2, 3]),
     'test.py c.py e.pth --all-experts'),
])
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
    samples = [make_sample(routed_compute=torch.tensor([c])) for c in (1., 2)]
    mmengine.dump(samples, str(file))
    with pytest.raises(UserError, match='images of different sizes'):
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


@pytest.mark.parametrize('content, message', [
    ({'long_tail/overall': 50.}, 'a dict instead of a list'),
    ([], 'an empty list'),
    ([1, 2], 'entry 0 is a int'),
    ([{'gt_label': torch.tensor([0])}], 'neither `pred_score`'),
    ([{'pred_label': torch.tensor([0])}], 'gt_label'),
    ([make_sample([0, 1])], 'exactly one true label'),
    ([make_sample(num_experts_used=1)], 'only one of `num_experts_used`'),
    ([make_sample(), make_sample(extra=1)], 'differ: only one has `extra`'),
    ([dict(make_sample(), pred_score='high')], 'not a file of predictions'),
    ([dict(make_sample(), gt_label='cat')], 'not a file of predictions'),
    ([make_sample(),
      dict(make_sample(), pred_score=torch.ones(9))], 'not a file of'),
])
def test_wrong_content(tmp_path, content, message):
    file = tmp_path / 'predictions.pkl'
    mmengine.dump(content, str(file))
    with pytest.raises(UserError, match=message):
        read_predictions(file)


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
    with pytest.raises(UserError, match='io.open'):
        read_predictions(file)

    class Storage:
        """The same, one pickle deeper: where a tensor keeps its numbers."""

        def __reduce__(self):
            inner = tmp_path / 'inner'
            torch.save(
                Attack(trace), inner, _use_new_zipfile_serialization=False)
            return torch.storage._load_from_bytes, (inner.read_bytes(), )

    file.write_bytes(pickle.dumps([Storage()]))
    with pytest.raises(UserError, match='not a file of predictions'):
        read_predictions(file)
    assert not trace.exists()
