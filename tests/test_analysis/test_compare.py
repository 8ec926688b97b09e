import json
import math

import numpy as np
import pytest
import torch
from conftest import load_tool
from prediction_files import write_predictions

from ride_mm.analysis import compare, compare_files, read_runs
from ride_mm.analysis.comparison.compare import comparison_tables, coverage_note, to_json
from ride_mm.analysis.comparison.intervals import Difference
from ride_mm.analysis.comparison.runs import EvaluatedRun, Runs
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation.tables import render_table
from ride_mm.utils.errors import UserError

COUNTS = [300, 150, 60, 10]
LABELS = np.array([0] * 8 + [1] * 6 + [2] * 5 + [3] * 4)


def random_hits(runs, seed, images=len(LABELS)):
    return np.random.default_rng(seed).random((runs, images)) < 0.6


def make_runs(hits, labels=LABELS, counts=COUNTS, weights=None, **kwargs):
    """Runs from hits by method, of weights of their own if none are named."""
    methods = {}
    for method, rows in hits.items():
        names = (weights or {}).get(method, [f'{method}{i}' for i in range(len(rows))])
        methods[method] = [
            EvaluatedRun(
                f'{name}.npz',
                np.where(row, labels, labels + 1),
                labels,
                dict(config='c.py', options={}, checkpoint='e.pth', weights=name),
            )
            for name, row in zip(names, rows)
        ]
    return Runs(methods, ClassGroups(counts, **kwargs))


@pytest.fixture
def write(tmp_path):
    """Write a file of predictions."""

    def write(name, hits, labels=LABELS, **run):
        run = dict(
            dict(
                config='configs/ride.py',
                options={},
                checkpoint=f'{name}.pth',
                weights=name,
                classes=None,
                class_counts=COUNTS,
                thresholds=(20, 100),
            ),
            **run,
        )
        num_classes = len(run['class_counts'])
        samples = []
        for label, hit in zip(labels, hits):
            chosen = label if hit else (label + 1) % num_classes
            score = torch.zeros(num_classes)
            score[int(chosen)] = 1.0
            samples.append(dict(gt_label=torch.tensor([int(label)]), pred_score=score))
        file = tmp_path / f'{name}.npz'
        write_predictions(file, samples, **run)
        return str(file)

    return write


def test_figures_by_hand():
    hits = dict(a=random_hits(2, 0), b=random_hits(3, 1))
    found = compare(make_runs(hits), resamples=40)
    groups = dict(many=[0, 1], medium=[2], few=[3])
    expected = {}
    for method, rows in hits.items():
        by_class = [
            [100 * sum(row[LABELS == k]) / sum(LABELS == k) for k in range(4)] for row in rows
        ]
        figures = dict(
            overall=[100 * sum(row) / len(row) for row in rows],
            balanced=[sum(values) / 4 for values in by_class],
        )
        for name, classes in groups.items():
            images = np.isin(LABELS, classes)
            figures[name] = [100 * row[images].mean() for row in rows]
        expected[method] = {k: sum(v) / len(v) for k, v in figures.items()}
        for name, values in figures.items():
            mean = expected[method][name]
            squares = sum((value - mean) ** 2 for value in values)
            assert found.mean(method, name) == pytest.approx(mean, abs=1e-12)
            assert found.deviation(method, name) == pytest.approx(
                math.sqrt(squares / (len(values) - 1)), abs=1e-12
            )
        np.testing.assert_allclose(found.by_class[method], np.mean(by_class, axis=0), atol=1e-12)
    assert list(found.differences) == ['b']
    assert list(found.differences['b']) == list(expected['a'])
    for name, difference in found.differences['b'].items():
        assert difference.value == pytest.approx(
            expected['b'][name] - expected['a'][name], abs=1e-12
        )
        assert difference.low < difference.value < difference.high
    # parts of one class each: the differences of the classes
    assert [part.tolist() for part in found.parts] == [[0], [1], [2], [3]]
    assert [part.value for part in found.by_part['b']] == pytest.approx(
        found.class_differences('b').tolist(), abs=1e-12
    )


def test_groups_without_images_and_a_class_without_any():
    labels = np.array([0, 0, 0, 2, 2])
    hits = dict(a=np.array([[1, 0, 1, 0, 1]]), b=np.array([[0, 0, 1, 0, 1]]))
    found = compare(make_runs({k: v.astype(bool) for k, v in hits.items()}, labels))
    assert list(found.differences['b']) == ['overall', 'balanced', 'many', 'medium']
    assert found.differences['b']['balanced'].value == pytest.approx(-50 / 3)
    np.testing.assert_allclose(found.class_differences('b'), [-100 / 3, np.nan, 0, np.nan])
    assert found.class_shares('b', 'overall') == (0, 50)
    assert found.class_shares('b', 'many') == (0, 100)
    text = render_table(comparison_tables(found)[1])
    assert 'medium' in text and 'few' not in text
    content = to_json(found)
    assert content['differences']['b']['by_class'][1] is None
    json.dumps(content, allow_nan=False)


def test_one_class():
    hits = dict(a=random_hits(1, 0, 9), b=random_hits(1, 1, 9))
    found = compare(make_runs(hits, np.zeros(9, int), [50]))
    figures = found.differences['b']
    assert list(figures) == ['overall', 'balanced', 'medium']
    assert len({tuple(vars(d).values()) for d in figures.values()}) == 1


def test_ties_of_classes_are_exact():
    """3 of 10 images in two runs, 9 of 30 in three: neither is better."""
    labels = np.zeros(10, int)
    rows = np.arange(10) < np.array([[1], [2], [3], [6]])
    found = compare(
        make_runs(dict(a=rows[[1, 3, 1, 1, 1]], b=rows[[0, 2, 0, 2, 3]]), labels, [50]),
        resamples=40,
    )
    # (2 + 6 + 2 + 2 + 2) of 50 and (1 + 3 + 1 + 3 + 6) of 50
    assert found.class_shares('b', 'overall') == (0, 0)
    assert found.differences['b']['overall'].value == pytest.approx(0, abs=1e-12)


def test_same_weights_are_paired():
    """What seeds have in common with themselves is no noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 250)
    skill = np.repeat([0.2, 0.5, 0.8], 1000).reshape(3, 1000)
    a = rng.random((3, 1000)) < skill
    b = a | (rng.random((3, 1000)) < 0.03 / (1 - skill))
    names = ['x', 'y', 'z']
    alone = compare(make_runs(dict(a=a, b=b), labels))
    pairs = compare(make_runs(dict(a=a, b=b), labels, weights=dict(a=names, b=names)))
    ends = [found.differences['b']['overall'] for found in (alone, pairs)]
    assert ends[0].value == ends[1].value > 0
    assert ends[0].verdict == 'not told apart'
    assert ends[1].verdict == 'better'
    assert ends[1].high - ends[1].low < 5


def test_classes_of_one_image_are_drawn_together():
    """Else they would have no share in the width of the interval."""
    hits = dict(a=random_hits(1, 0, 60), b=random_hits(1, 1, 60))
    found = compare(make_runs(hits, np.arange(60), [5] * 60))
    values = 100.0 * (hits['b'][0].astype(float) - hits['a'][0])
    expected = sum(np.var(part, ddof=1) * len(part) for part in np.split(values, 4)) ** 0.5
    interval = found.differences['b']['overall']
    assert (interval.high - interval.low) / 3.92 == pytest.approx(expected / 60, rel=0.05)


def test_tables_and_notes():
    runs = make_runs({'a': random_hits(2, 0), 'b [x=1]': random_hits(1, 1)})
    found = compare(runs, resamples=40)
    first, second = map(render_table, comparison_tables(found))
    assert 'few (< 20)' in first and 'b [x=1]' in first
    assert f'{found.mean("b [x=1]", "few"):.2f} ± -' in first
    assert (f'{found.mean("a", "few"):.2f} ± {found.deviation("a", "few"):.2f}') in first
    assert second.startswith('b [x=1] minus a, ')
    assert 'not told apart' in second
    assert 'Methods with a single run: b [x=1].' in coverage_note(runs)
    assert 'not other training seeds' in coverage_note(runs)
    both = make_runs(dict(a=random_hits(2, 0), b=random_hits(2, 1)))
    assert 'other seeds' in coverage_note(both)


@pytest.mark.parametrize(
    'ends, verdict',
    [
        ((1.0, 0.1, 2.0), 'better'),
        ((-1.0, -2.0, -0.1), 'worse'),
        ((1.0, -0.1, 2.0), 'not told apart'),
        ((1.0, 0.0, 2.0), 'not told apart'),
        ((1.0, math.nan, math.nan), 'no interval'),
    ],
)
def test_verdicts(ends, verdict):
    assert Difference(*ends).verdict == verdict


def test_reads_methods_by_config_and_options(write):
    hits = random_hits(6, 0)
    data = 'test_dataloader.dataset.data_root'
    files = [
        write('a', hits[0], options={'randomness.seed': 1}),
        write('b', hits[1], config='./configs/ride.py', options={data: 'd'}),
        write('c', hits[2], options={'model.test_cfg.mode': 'ensemble'}),
        write('d', hits[3], config='configs/ce.py', options={'x': 1}),
        write('e', hits[4], config='mine/ce.py', options={'x': 1}),
        write('f=g', hits[5]),
    ]
    files[4] = f'mine={files[4]}'
    runs = read_runs(files)
    assert {m: [run.weights for run in r] for m, r in runs.methods.items()} == {
        'ride': ['a', 'b', 'f=g'],
        'ride model.test_cfg.mode=ensemble': ['c'],
        'configs/ce.py': ['d'],
        'mine': ['e'],
    }
    assert runs.baseline == 'ride'
    np.testing.assert_array_equal(runs.hits('ride'), hits[[0, 1, 5]])
    np.testing.assert_array_equal(runs.gt_label, LABELS)
    assert runs.groups.counts.tolist() == COUNTS
    assert runs.groups.thresholds == (20, 100)


def test_runs_of_the_same_weights_stand_in_the_same_order(write):
    hits = random_hits(4, 0)
    runs = read_runs(
        [
            'A=' + write('1', hits[0], weights='x'),
            'A=' + write('2', hits[1], weights='y'),
            'B=' + write('3', hits[2], weights='y'),
            'B=' + write('4', hits[3], weights='x'),
        ]
    )
    assert runs.share_weights('B')
    np.testing.assert_array_equal(runs.hits('B'), hits[[3, 2]])


@pytest.mark.parametrize(
    'other, message',
    [
        (dict(labels=LABELS[:-1]), '23 and 22 images'),
        (dict(labels=LABELS[::-1]), 'image 0 has class 0 in one and class 3'),
        (dict(class_counts=[300, 150, 60, 11]), 'in the number of training'),
        (dict(thresholds=(21, 99)), r'split at \(20, 100\) in one and at \(21, '),
    ],
)
def test_other_test_sets(write, other, message):
    files = [write('a', LABELS > 0), write('b', LABELS > 0, **other)]
    with pytest.raises(UserError, match=f'a.npz and .*b.npz.*{message}'):
        read_runs(files)


@pytest.mark.parametrize('weights', ['same', None])
def test_one_seed_given_twice(write, weights):
    made_by = dict(weights=weights, checkpoint='http://e.pth')
    files = [write(name, LABELS > 0, **made_by) for name in 'ab']
    with pytest.raises(
        UserError,
        match='a.npz and .*b.npz have the same '
        r'weights \(http://e.pth\).*two seeds of ride',
    ):
        read_runs(files)
    assert read_runs(['A=' + files[0], 'B=' + files[1]]).share_weights('B')


@pytest.mark.parametrize(
    'argument, message',
    [
        ('absent.npz', 'no predictions file absent.npz'),
        ('A=absent.npz', 'no predictions file absent.npz'),
        ('=absent.npz', 'expected FILE or METHOD=FILE'),
        ('A=', 'expected FILE or METHOD=FILE'),
    ],
)
def test_wrong_arguments(argument, message):
    with pytest.raises(UserError, match=message):
        read_runs([argument])


def test_tool(write, tmp_path, capsys):
    hits = random_hits(4, 0)
    files = [f'A={write(name, hits[i])}' for i, name in enumerate('xy')]
    files += [f'B={write(name, hits[2 + i])}' for i, name in enumerate('uv')]
    out = tmp_path / 'out'
    load_tool('tools/analysis/compare.py').main(
        [
            *files,
            '--resamples',
            '100',
            '--seed',
            '3',
            '--plot',
            str(out / 'c.png'),
            '--json',
            str(out / 'c.json'),
        ]
    )
    printed = capsys.readouterr().out
    for text in (
        'A: ',
        'x.npz',
        'B minus A',
        '95% interval',
        'other seeds',
        str(out / 'c.png'),
        str(out / 'c.json'),
    ):
        assert text in printed
    content = json.loads((out / 'c.json').read_text())
    found = compare(read_runs(files), resamples=100, seed=3)
    assert content == dict(
        json.loads(json.dumps(to_json(found))), level=0.95, resamples=100, seed=3
    )
    few = content['differences']['B']['figures']['few']
    assert few['difference'] == found.differences['B']['few'].value
    assert few['verdict'] == found.differences['B']['few'].verdict
    assert content['methods']['A']['runs'][1]['weights'] == 'y'
    assert (out / 'c.png').read_bytes().startswith(b'\x89PNG')


def test_one_method_alone(write, tmp_path, capsys):
    files = [write(name, LABELS > i) for i, name in enumerate('xy')]
    found = compare_files(files, json_file=tmp_path / 'c.json')
    assert found.differences == {}
    assert 'ride: ' in capsys.readouterr().out
    content = json.loads((tmp_path / 'c.json').read_text())
    assert content['methods']['ride']['deviation']['overall'] > 0
    with pytest.raises(UserError, match='one method, ride'):
        compare_files(files, plot_file=tmp_path / 'c.png')


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(resamples=1), 'resamples'),
        (
            dict(plot_file='c.jpg'),
            r'c.jpg: the name of a plot must end in one of '
            r'.png',
        ),
    ],
)
def test_wrong_options_before_anything_is_read(kwargs, message):
    with pytest.raises(UserError, match=message):
        compare_files(['absent.npz'], **kwargs)


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as info:
        load_tool('tools/analysis/compare.py').parse_args(['--help'])
    assert info.value.code == 0
    assert 'tools/analysis/compare.py' in capsys.readouterr().out
