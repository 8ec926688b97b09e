"""docs/answers.md and docs/gallery.md."""

import importlib
import json

import pytest
import torch
from mmpretrain.structures import DataSample
from prediction_files import write_predictions

from ride_mm.utils.errors import UserError

KEYS = ('overall', 'many', 'medium', 'few')


@pytest.fixture
def page(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'docs')
    return importlib.import_module('make_answers')


def method(value, seeds=3):
    return dict(
        runs=[{}] * seeds,
        mean=dict.fromkeys(KEYS, value),
        deviation=dict.fromkeys(KEYS, 0.25 if seeds > 1 else None),
    )


def difference(verdict):
    return dict(difference=-1.04, low=-2.06, high=0.0, verdict=verdict)


def test_a_question(page, tmp_path):
    folder = tmp_path / 'results/answers'
    folder.mkdir(parents=True)
    verdicts = ('worse', 'not told apart', 'not told apart', 'better')
    comparison = dict(
        baseline='RIDE',
        methods={'RIDE': method(45.0), 'CE': method(44.0, seeds=1)},
        differences={'CE': dict(figures=dict(zip(KEYS, map(difference, verdicts))))},
    )
    (folder / 'ride.json').write_text(json.dumps(comparison))
    text = page.make_page(tmp_path)
    assert text.count('\n## ') == 1 and page.QUESTIONS['ride'] in text
    assert (
        '- **CE**, against RIDE: worse over all classes; no difference seen in many-shot classes, '
        'in medium-shot classes; better in few-shot classes.\n'
    ) in text
    assert '| RIDE | 3 | 45.0 ± 0.2 |' in text
    assert '| CE | 1 | 44.0 |' in text
    assert '| *CE* minus RIDE |  | -1.0 (-2.1 to +0.0) |' in text


def points(pairs):
    return [
        dict(threshold=0.5, compute=compute, accuracy=dict(overall=value))
        for compute, value in pairs
    ]


def test_the_router(page, tmp_path):
    """The interval of three differences of -1, -2 and -3 points."""
    folder = tmp_path / 'results/answers'
    folder.mkdir(parents=True)
    for seed in range(3):
        run = dict(
            curve=points([(0.5, 40.0), (0.61, 50.0 - seed), (0.71, 60.0)]),
            confidence=points([(0.5, 45.0), (0.59, 51.0), (0.71, 60.0 + seed / 100)]),
            agreement=points([(0.8, 61.0)])[0],
        )
        (folder / f'router_seed{seed}.json').write_text(json.dumps(run))
    lines = page.make_page(tmp_path).splitlines()
    # 4.303 standard errors, sqrt(1 / 3), on both sides of the mean
    assert '| 0.6 | 49.0 ± 1.0 | 51.0 ± 0.0 | -2.00 (-4.48 to +0.48) |' in lines
    assert any('equal compute: no difference seen.' in line for line in lines)
    assert (
        '(95 %). Stopping once two experts agree takes 0.80 of the compute and reaches 61.0.'
        in (lines)
    )


def test_page_is_that_of_the_results(page, root):
    assert (root / 'docs/answers.md').read_text() == page.make_page(root)


def test_check_of_an_old_page(page, tmp_path, monkeypatch):
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'docs/answers.md').write_text('old')
    monkeypatch.setattr(page, 'ROOT', tmp_path)
    monkeypatch.setattr('sys.argv', ['make_answers.py', '--check'])
    with pytest.raises(UserError, match='does not match'):
        page.main()


def test_the_gallery(root, tmp_path, monkeypatch):
    """A picture of the experts only where they differ between images."""
    monkeypatch.syspath_prepend(root / 'docs')
    gallery = importlib.import_module('make_gallery')
    monkeypatch.setattr(gallery, 'FOLDER', tmp_path)
    for name, used in (('single', (1, 1)), ('routed', (1, 2))):
        samples = []
        for label in (0, 1, 2):
            sample = DataSample().set_gt_label(label).set_pred_score(torch.eye(3)[label])
            sample.num_experts_used = used[label % 2]
            sample.relative_compute = used[label % 2] / 2
            samples.append(sample.to_dict())
        write_predictions(tmp_path / f'{name}.npz', samples, class_counts=[200, 50, 5])
        gallery.main([f'{name}={tmp_path / name}.npz'])
    drawn = sorted(path.name for path in tmp_path.glob('*.svg'))
    assert drawn == [
        'routed_accuracy.svg',
        'routed_experts.svg',
        'routed_reliability.svg',
        'single_accuracy.svg',
        'single_reliability.svg',
    ]
