"""Reading of "path label" lists."""

import codecs

from mmengine.fileio import exists, get_text, isdir

from ride_mm.utils.errors import UserError

# Labels above both are a mistake: counting up to them could exhaust the memory.
_MAX_LABEL, _MAX_LABEL_PER_IMAGE = 100_000, 100


def read_annotations(
    ann_file: str, num_classes: int | None = None
) -> tuple[list[str], list[int], list[int]]:
    """Read a list with one image per line: its path, a space and its label.

    The label follows the last white space, so paths may contain spaces. Blank
    lines are skipped.

    Args:
        ann_file (str): Path of the list.
        num_classes (int, optional): Labels must be smaller than this.
            Defaults to None, which means any label of at least 0.

    Returns:
        tuple: Paths, labels and line numbers (from 1), each of length N.

    Raises:
        UserError: If the list is missing, empty or not UTF-8.
        UserError: If a line is not a path and a valid label.
    """
    paths, labels, numbers, problems = [], [], [], []
    for number, line in enumerate(_read_text(ann_file).split('\n'), 1):
        fields = line.strip().rsplit(None, 1)
        if not fields:
            continue
        try:
            label = _read_label(fields, num_classes)
        except ValueError as error:
            problems.append((number, str(error)))
            continue
        paths.append(fields[0])
        labels.append(label)
        numbers.append(number)

    largest = max(labels, default=0)
    if num_classes is None and largest > max(_MAX_LABEL, _MAX_LABEL_PER_IMAGE * len(labels)):
        problem = (
            f'label {largest} would mean {largest + 1} classes of {len(labels)} images. '
            'If this is intended, set num_classes'
        )
        problems.append((numbers[labels.index(largest)], problem))
    if problems:
        number, problem = problems[0]
        if problems[1:]:
            problem += f' (and {len(problems) - 1} more such lines)'
        raise UserError(
            f'{ann_file}, line {number}: {problem}',
            [f'{ann_file}:{number}: {problem}' for number, problem in problems],
        )
    if not paths:
        raise UserError(f'{ann_file}: the list is empty')
    return paths, labels, numbers


def _read_text(ann_file: str) -> str:
    if not exists(ann_file):
        raise UserError(f'Annotation list not found: {ann_file}')
    if isdir(ann_file):
        raise UserError(
            f'{ann_file} is a folder, expected a list with one line "path label" per image. '
            'Give class folders as data_prefix'
        )
    try:
        # Without the byte order mark that some editors write.
        return get_text(ann_file, encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b'\n') + 1
        is_utf16 = error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise UserError(
            f'{ann_file}, line {line}: not UTF-8. Convert the list with '
            f'iconv -f {"UTF-16" if is_utf16 else "LATIN1"} -t UTF-8'
        ) from error


def _read_label(fields: list[str], num_classes: int | None) -> int:
    if len(fields) != 2:
        raise ValueError(f'expected a path, a space and a label, found {fields[0]!r}')
    try:
        label = int(fields[1])
    except ValueError:
        raise ValueError(
            f'expected an integer label after the last space, found {fields[1]!r}'
        ) from None
    if label < 0 or num_classes is not None and label >= num_classes:
        expected = 'of at least 0' if num_classes is None else f'between 0 and {num_classes - 1}'
        raise ValueError(f'expected a label {expected}, found {label}')
    return label
