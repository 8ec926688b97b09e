"""The classes by name: how often each is recognized, and what it is taken for."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table
from scipy.stats import binomtest

from ride_mm.analysis.predictions import Predictions
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.files import write_file

COLUMNS = ['class', 'training images', 'test images', 'accuracy (%)', '95 % interval', 'taken for']


class ClassRow(NamedTuple):
    """How a class fares in a test.

    Args:
        name (str): Its name.
        group (str): "many", "medium" or "few".
        training_images (int): Its training images.
        images (int): Its test images.
        accuracy (float): Percent of them that are recognized.
        low (float): Lower end of the Wilson interval of 95 %, percent.
        high (float): Upper end.
        taken_for (str): The label that the most of its other images get, ''
            if all are recognized.
        share (float): Percent of its test images that get it.
    """

    name: str
    group: str
    training_images: int
    images: int
    accuracy: float
    low: float
    high: float
    taken_for: str
    share: float


def class_rows(
    predictions: Predictions, groups: ClassGroups, names: Sequence[str] | None = None
) -> list[ClassRow]:
    """Describe the classes that have test images.

    Args:
        predictions (Predictions): The predictions.
        groups (ClassGroups): The groups of the K classes.
        names (Sequence[str], optional): K names. Defaults to None: their
            numbers.

    Returns:
        list[ClassRow]: The classes, the one with the lowest accuracy first.
    """
    names = list(map(str, range(len(groups)) if names is None else names))
    group_of = {
        label: name for name, mask in groups.masks.items() for label in np.flatnonzero(mask)
    }
    rows = []
    for label in np.unique(predictions.gt_label).tolist():
        found = np.bincount(
            predictions.pred_label[predictions.gt_label == label], minlength=len(groups)
        )
        right, number = int(found[label]), int(found.sum())
        found[label] = 0
        interval = binomtest(right, number).proportion_ci(method='wilson')
        rows.append(
            ClassRow(
                names[label],
                group_of[label],
                int(groups.counts[label]),
                number,
                100.0 * right / number,
                100.0 * interval.low,
                100.0 * interval.high,
                names[found.argmax()] if right < number else '',
                100.0 * float(found.max()) / number,
            )
        )
    return sorted(rows, key=lambda row: (row.accuracy, row.name))


def class_cells(rows: Sequence[ClassRow]) -> list[list[str]]:
    """Format the cells under ``COLUMNS``."""
    return [
        [
            row.name,
            f'{row.training_images:,} ({row.group})',
            f'{row.images:,}',
            f'{row.accuracy:.1f}',
            f'{row.low:.1f} to {row.high:.1f}',
            f'{row.taken_for} ({row.share:.0f} %)' if row.taken_for else '',
        ]
        for row in rows
    ]


def class_table(rows: Sequence[ClassRow], most: int = 10) -> Table:
    """Build a table of the classes with the lowest accuracy.

    Args:
        rows (Sequence[ClassRow]): The output of :func:`class_rows`.
        most (int): How many to show. Defaults to 10.

    Returns:
        rich.table.Table: The table.
    """
    shown = rows[:most]
    title = f'The {len(shown)} classes with the lowest accuracy'
    return build_table(title, COLUMNS, class_cells(shown))


def write_class_table(rows: Sequence[ClassRow], path: str | Path) -> None:
    """Write all classes to a CSV file."""
    text = io.StringIO(newline='')
    table = csv.writer(text)
    table.writerow(ClassRow._fields)
    table.writerows(
        [f'{cell:.2f}' if isinstance(cell, float) else cell for cell in row] for row in rows
    )
    write_file(path, text.getvalue())
