"""The classes by name."""

import csv
import math

import numpy as np
import pytest

from ride_mm.analysis.accuracy.class_table import class_cells, class_rows, write_class_table
from ride_mm.analysis.predictions import Predictions
from ride_mm.datasets.class_groups import ClassGroups

GROUPS = ClassGroups([200, 50, 5, 3])
NAMES = ['ant', 'bee', 'cat', 'dog']
LABELS = np.array([0] * 8 + [1] * 10 + [2] * 4)
FOUND = np.array([0] * 8 + [1] * 7 + [3, 3, 0] + [0, 0, 0, 2])


def wilson(right, number, z=1.959963984540054):
    middle = (right + z**2 / 2) / (number + z**2)
    half = z / (number + z**2) * math.sqrt(right * (number - right) / number + z**2 / 4)
    return [100 * (middle - half), 100 * (middle + half)]


@pytest.fixture
def rows():
    predictions = Predictions(LABELS, np.eye(4)[FOUND])
    return class_rows(predictions, GROUPS, NAMES)


def test_rows(rows):
    """The worst class first; those without test images are left out."""
    assert [row.name for row in rows] == ['cat', 'bee', 'ant']
    cat, bee, ant = rows
    assert cat[:5] == ('cat', 'few', 5, 4, 25.0) and cat[7:] == ('ant', 75.0)
    assert bee[:5] == ('bee', 'medium', 50, 10, 70.0) and bee[7:] == ('dog', 20.0)
    assert ant[:5] == ('ant', 'many', 200, 8, 100.0) and ant[7:] == ('', 0.0)
    for row in rows:
        right = round(row.accuracy * row.images / 100)
        assert [row.low, row.high] == pytest.approx(wilson(right, row.images), abs=1e-9)


def test_cells(rows):
    assert class_cells(rows[:1]) == [
        ['cat', '5 (few)', '4', '25.0', f'{rows[0].low:.1f} to {rows[0].high:.1f}', 'ant (75 %)']
    ]
    assert class_cells(rows)[-1][-1] == ''


def test_file(rows, tmp_path):
    write_class_table(rows, tmp_path / 'classes.csv')
    found = list(csv.DictReader((tmp_path / 'classes.csv').open(newline='')))
    assert [row['name'] for row in found] == ['cat', 'bee', 'ant']
    assert found[1]['accuracy'] == '70.00' and found[1]['taken_for'] == 'dog'


def test_numbers_as_names():
    predictions = Predictions(LABELS, np.eye(4)[FOUND])
    assert class_rows(predictions, GROUPS)[0].name == '2'
