"""Reading of "path label" lists."""
from typing import List, Optional, Tuple

from mmengine.fileio import exists, get_text

from ride_mm.utils.errors import UserError

Records = Tuple[List[str], List[int], List[int]]


# Labels above both of these are a mistake: counts would fill the memory.
_SMALL, _SPARSE = 100_000, 100


def read_annotations(ann_file: str,
                     num_classes: Optional[int] = None) -> Records:
    """Read a list with one image a line: its path, a space and its label.

    The label is what follows the last white space, so that paths may hold
    spaces. Blank lines are skipped.

    Args:
        ann_file (str): Path of the list.
        num_classes (int, optional): Labels must be smaller than this.
            Defaults to None, which means any label of at least 0.

    Returns:
        tuple: The paths, the labels and the line numbers (from 1), three
        lists of the same length.

    Raises:
        UserError: If there is no such file.
        UserError: If a line is not a path and a label within the number of
            classes, or if the list is empty.
    """
    if not exists(ann_file):
        raise UserError(f'Annotation list not found: {ann_file}')

    paths, labels, numbers = [], [], []
    # Some editors begin a file with a byte order mark: not part of a path.
    try:
        text = get_text(ann_file, encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        line = error.object[:error.start].count(b'\n') + 1
        raise UserError(f'{ann_file}, line {line}: not in UTF-8. Convert the '
                        'list with iconv -f LATIN1 -t UTF-8') from error
    for number, line in enumerate(text.split('\n'), 1):
        fields = line.strip().rsplit(None, 1)
        if not fields:
            continue
        if len(fields) != 2:
            raise UserError(f'{ann_file}, line {number}: expected a path, a '
                            f'space and a label, found {line.strip()!r}')
        try:
            label = int(fields[1])
        except ValueError:
            raise UserError(
                f'{ann_file}, line {number}: expected an integer label after '
                f'the last space, found {fields[1]!r}') from None
        if label < 0 or num_classes is not None and label >= num_classes:
            expected = ('at least 0' if num_classes is None else
                        f'between 0 and {num_classes - 1}')
            raise UserError(f'{ann_file}, line {number}: expected a label '
                            f'{expected}, found {label}')
        paths.append(fields[0])
        labels.append(label)
        numbers.append(number)

    if not paths:
        raise UserError(f'{ann_file}: the list is empty')
    largest = max(labels)
    if num_classes is None and largest > max(_SMALL, _SPARSE * len(labels)):
        line = numbers[labels.index(largest)]
        raise UserError(
            f'{ann_file}, line {line}: label {largest} would mean '
            f'{largest + 1} classes of {len(labels)} images. If it is right, '
            'set num_classes')
    return paths, labels, numbers
