import pickle

import mmengine
import numpy as np
import pytest
import torch
from mmengine.evaluator import DumpResults
from mmpretrain.structures import DataSample

from ride_mm.analysis import read_predictions
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
