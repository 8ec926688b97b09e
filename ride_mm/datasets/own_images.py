"""Find the training and the test images in a folder, a list or a table."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from ride_mm.utils.errors import UserError, nearest
from ride_mm.utils.files import write_file

TEST_NAMES = ('test', 'val', 'valid', 'validation')
# Heads of the columns of a table, in lower case.
_PATHS = ('path', 'file', 'filename', 'file_name', 'filepath', 'image', 'image_path', 'img_path')
_LABELS = ('label', 'class', 'class_name', 'category', 'target', 'species')
_SPLITS = ('split', 'set', 'subset')


def find_own_images(data: str, test: str | None, lists: Path) -> tuple[dict, dict | None]:
    """Options of ``LongTailList`` for somebody's training and test images.

    Args:
        data (str): A folder that contains train/, and test/ or val/, with one
            folder per class; or the class folders themselves; a list, "path
            label" per line (.txt); or a table with the heads "path" and
            "label", and perhaps "split" (.csv).
        test (str, optional): A folder of class folders, or a list, of test
            images.
        lists (Path): Folder for the lists that are made of a table.

    Returns:
        tuple[dict, dict | None]: Options for the training and the test set;
        None without test images.

    Raises:
        UserError: If nothing of this kind is found.
    """
    path = Path(data)
    if path.suffix.lower() == '.csv':
        train, own_test = _from_table(path, lists)
    elif path.is_dir():
        train, own_test = _from_folder(path)
    else:
        train, own_test = _from_list(path), None
    if test is None:
        return train, own_test
    if own_test is not None:
        raise UserError(f'{data} has test images of its own: leave out --test {test}')
    counts = train.get('ann_file') or train['data_prefix']
    counts = os.path.join(train['data_root'], counts)
    other = Path(test)
    found = dict(data_root=test, data_prefix='') if other.is_dir() else _from_list(other)
    return train, dict(found, class_counts=os.path.abspath(counts))


def _from_folder(root: Path) -> tuple[dict, dict | None]:
    train = dict(data_root=str(root), data_prefix='train')
    if not (root / 'train').is_dir():
        return dict(train, data_prefix=''), None
    names = [name for name in TEST_NAMES if (root / name).is_dir()]
    if not names:
        return train, None
    return train, dict(train, data_prefix=names[0], class_counts='train')


def _from_list(path: Path) -> dict:
    if not path.is_file():
        raise UserError(f'{path}: there is no such folder, list (.txt) or table (.csv)')
    return dict(data_root=str(path.parent), data_prefix='', ann_file=path.name)


def _from_table(path: Path, lists: Path) -> tuple[dict, dict | None]:
    """Write a table as lists."""
    with open(path, newline='', encoding='utf-8-sig') as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise UserError(f'{path}: the table is empty')
    heads = {head.strip().lower(): head for head in rows[0] if head}
    image, label = (_column(path, heads, names) for names in (_PATHS, _LABELS))
    split = next((heads[name] for name in _SPLITS if name in heads), None)
    for number, row in enumerate(rows, 2):
        for column in filter(None, (image, label, split)):
            row[column] = (row[column] or '').strip()
            if not row[column]:
                raise UserError(f'{path}, line {number}: the column {column!r} is empty')
    classes = sorted({row[label] for row in rows})
    found = {row[split].lower() for row in rows} if split else {'train'}
    if 'train' not in found:
        raise UserError(f'{path}: no row has the {split} "train", found {", ".join(sorted(found))}')
    parts = ['train', *[name for name in TEST_NAMES if name in found][:1]]
    for part in parts:
        lines = [
            f'{row[image]} {classes.index(row[label])}\n'
            for row in rows
            if split is None or row[split].lower() == part
        ]
        write_file(lists / f'{part}.txt', ''.join(lines))
    write_file(lists / 'classes.txt', ''.join(f'{name}\n' for name in classes))
    train, *test = (
        dict(
            data_root=str(path.parent),
            data_prefix='',
            ann_file=str((lists / f'{part}.txt').absolute()),
            classes=str((lists / 'classes.txt').absolute()),
        )
        for part in parts
    )
    if not test:
        return train, None
    return train, dict(test[0], class_counts=train['ann_file'])


def _column(path: Path, heads: dict[str, str], names: Sequence[str]) -> str:
    for name in names:
        if name in heads:
            return heads[name]
    raise UserError(
        f'{path}: expected a column {names[0]!r}, found {", ".join(heads.values())}.'
        f'{nearest(names[0], heads)}'
    )
