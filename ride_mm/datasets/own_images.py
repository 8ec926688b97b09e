"""Find training, test and validation images in a folder, a list or a table."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ride_mm.utils.errors import UserError, nearest
from ride_mm.utils.files import write_file

TEST_NAMES = ['test', 'val', 'valid', 'validation']
# A set of these names is for validation if there is one for the test as well.
_VAL_NAMES = TEST_NAMES[1:]
# Heads of the columns of a table, in lower case.
_PATHS = ('path', 'file', 'filename', 'file_name', 'filepath', 'image', 'image_path', 'img_path')
_LABELS = ('label', 'class', 'class_name', 'category', 'target', 'species')
_SPLITS = ('split', 'set', 'subset')


def find_own_images(
    data: str, test: str | None, lists: Path
) -> tuple[dict, dict | None, dict | None]:
    """Options of ``LongTailList`` for somebody's images.

    Args:
        data (str): A folder that contains train/, and test/, val/ or both, with
            one folder per class; or the class folders themselves; a list, "path
            label" per line (.txt); or a table with the heads "path" and
            "label", and perhaps "split" (.csv).
        test (str, optional): A folder of class folders, or a list, of test
            images.
        lists (Path): Folder for the lists that are made of a table.

    Returns:
        tuple[dict, dict | None, dict | None]: Options for the training, the test
        and the validation set; None without such images. If there is only one
        set beside that for training, it is the test set.

    Raises:
        UserError: If nothing of this kind is found.
    """
    path = Path(data)
    if path.suffix.lower() == '.csv':
        train, *others = _from_table(path, lists)
    elif path.is_dir():
        train, *others = _from_folder(path)
    else:
        train, *others = [_from_list(path)]
    if test is None:
        own_test, val, *_ = [*others, None, None]
        return train, own_test, val
    if others:
        raise UserError(f'{data} has test images of its own: leave out --test {test}')
    counts = train.get('ann_file') or train['data_prefix']
    counts = os.path.join(train['data_root'], counts)
    other = Path(test)
    found = dict(data_root=test, data_prefix='') if other.is_dir() else _from_list(other)
    return train, dict(found, class_counts=os.path.abspath(counts)), None


def _others(is_there: Callable[[str], bool]) -> list[str]:
    """Names of the sets for the test and, beside it, for validation."""
    test = [name for name in TEST_NAMES if is_there(name)][:1]
    val = [name for name in _VAL_NAMES if is_there(name) and test == TEST_NAMES[:1]][:1]
    return test + val


def _from_folder(root: Path) -> list[dict]:
    train = dict(data_root=str(root), data_prefix='train')
    if not (root / 'train').is_dir():
        return [dict(train, data_prefix='')]
    names = _others(lambda name: (root / name).is_dir())
    return [train, *(dict(train, data_prefix=name, class_counts='train') for name in names)]


def _from_list(path: Path) -> dict:
    if not path.is_file():
        raise UserError(f'{path}: there is no such folder, list (.txt) or table (.csv)')
    return dict(data_root=str(path.parent), data_prefix='', ann_file=path.name)


def _from_table(path: Path, lists: Path) -> list[dict]:
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
    parts = ['train', *_others(found.__contains__)]
    for part in parts:
        lines = [
            f'{row[image]} {classes.index(row[label])}\n'
            for row in rows
            if split is None or row[split].lower() == part
        ]
        write_file(lists / f'{part}.txt', ''.join(lines))
    write_file(lists / 'classes.txt', ''.join(f'{name}\n' for name in classes))
    train, *others = (
        dict(
            data_root=str(path.parent),
            data_prefix='',
            ann_file=str((lists / f'{part}.txt').absolute()),
            classes=str((lists / 'classes.txt').absolute()),
        )
        for part in parts
    )
    return [train, *(dict(other, class_counts=train['ann_file']) for other in others)]


def _column(path: Path, heads: dict[str, str], names: Sequence[str]) -> str:
    for name in names:
        if name in heads:
            return heads[name]
    raise UserError(
        f'{path}: expected a column {names[0]!r}, found {", ".join(heads.values())}.'
        f'{nearest(names[0], heads)}'
    )
