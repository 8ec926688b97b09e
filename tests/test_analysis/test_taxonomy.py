"""Answers at the deepest rank that is certain enough."""

import csv

import numpy as np
import pytest
import torch
from conftest import load_tool
from mmpretrain.structures import DataSample
from prediction_files import write_predictions

from ride_mm.analysis.taxonomy import deepest_answers, rank_figures, read_taxonomy
from ride_mm.utils.errors import UserError

CLASSES = ['red fox', 'grey fox', 'wolf', 'lynx']
TABLE = """class,genus,family
lynx,lynx,cats

red fox,foxes,dogs
wolf,wolves, dogs
grey fox,foxes,dogs
"""
SCORES = np.array(
    [
        [0.9, 0.05, 0.03, 0.02],  # a class
        [0.5, 0.35, 0.1, 0.05],  # a genus
        [0.3, 0.3, 0.3, 0.1],  # a family
        [0.3, 0.2, 0.1, 0.4],  # nothing
        [0.1, 0.1, 0.0, 0.8],  # exactly enough
    ]
)


@pytest.fixture
def file(tmp_path):
    def write(text=TABLE):
        path = tmp_path / 'taxonomy.csv'
        path.write_text(text)
        return str(path)

    return write


def test_ranks(file):
    taxonomy = read_taxonomy(file(), CLASSES)
    assert taxonomy.ranks == ['class', 'genus', 'family']
    assert taxonomy.names == [CLASSES, ['foxes', 'lynx', 'wolves'], ['cats', 'dogs']]
    assert taxonomy.group_of.tolist() == [[0, 1, 2, 3], [0, 0, 2, 1], [1, 1, 1, 0]]


def test_answers(file):
    taxonomy = read_taxonomy(file(), CLASSES)
    answers = deepest_answers(SCORES, taxonomy, 0.8)
    assert answers.rank.tolist() == [0, 1, 2, 3, 0]
    assert answers.group.tolist() == [0, 0, 1, -1, 3]
    assert answers.score == pytest.approx([0.9, 0.85, 0.9, 1, 0.8])
    figures = rank_figures(answers, np.array([0, 2, 2, 0, 3]), taxonomy)
    assert figures == {
        'class': pytest.approx(dict(images=40, stated=85, right=100)),
        'genus': pytest.approx(dict(images=20, stated=85, right=0)),
        'family': pytest.approx(dict(images=20, stated=90, right=100)),
        'any': pytest.approx(dict(images=80, stated=86.25, right=75)),
    }
    assert deepest_answers(SCORES, taxonomy, 0).rank.tolist() == [0] * 5


@pytest.mark.parametrize(
    'change, words',
    [
        (('red fox,', 'red fix,'), r"taxonomy.csv:4: there is no class 'red fix'\..*red fox"),
        (('wolf,', 'lynx,'), "taxonomy.csv:5: 'lynx' is listed twice"),
        (
            ('wolf,wolves,', 'wolf,'),
            'taxonomy.csv:5: expected .*, found wolf, dogs',
        ),
        (('wolves', ''), 'taxonomy.csv:5: expected class,genus,family'),
        (('lynx,lynx,cats\n', ''), 'taxonomy.csv has no line for .*lynx'),
        (
            ('grey fox,foxes,dogs', 'grey fox,foxes,cats'),
            'taxonomy.csv:6: foxes is in cats, but in dogs in line 4',
        ),
        ((TABLE, 'class\nlynx\n'), 'taxonomy.csv:1: expected the names of two or more ranks'),
        ((TABLE, ''), 'taxonomy.csv:1: expected the names of two or more ranks'),
    ],
)
def test_mistakes(file, change, words):
    with pytest.raises(UserError, match=words):
        read_taxonomy(file(TABLE.replace(*change)), CLASSES)
    with pytest.raises(UserError, match='there is no file absent.csv'):
        read_taxonomy('absent.csv', CLASSES)


def test_the_tool(file, tmp_path, capsys):
    samples = [
        DataSample().set_gt_label(label).set_pred_score(torch.tensor(score)).to_dict()
        for label, score in zip([0, 2, 2, 0, 3], SCORES)
    ]
    predictions, out = tmp_path / 'predictions.npz', tmp_path / 'answers.csv'
    write_predictions(predictions, samples, classes=CLASSES)
    main = load_tool('tools/analysis/ranks.py').main
    main([str(predictions), file(), '--out', str(out)])
    assert '75.0' in capsys.readouterr().out
    rows = [list(row.values()) for row in csv.DictReader(out.open(newline=''))]
    assert rows[:4] == [
        ['0', 'class', 'red fox', '0.900000'],
        ['1', 'genus', 'foxes', '0.850000'],
        ['2', 'family', 'dogs', '0.900000'],
        ['3', '', '', ''],
    ]
    with pytest.raises(SystemExit):
        main([str(predictions), file(), '--confidence', '80'])
    write_predictions(predictions, samples)
    with pytest.raises(UserError, match='has no names of classes'):
        main([str(predictions), file()])
