"""Options of a test that are safe to read from a file of predictions.

The file stores the ``--cfg-options`` of its test. Since it may come from an
untrusted source, and an option can choose which class is built, only plain
values that describe the data and the class groups are applied.
"""

import re
from pathlib import Path
from typing import Any

from ride_mm.engine.config_changes import HOUSEKEEPING
from ride_mm.utils.errors import UserError

_DATA = re.compile(
    r'(train|test)_dataloader(\.dataset)+\.(data_root|data_prefix|ann_file'
    r'|split|class_counts|num_classes|imb_type|imb_factor|max_count'
    r'|subset_seed|check_integrity|to_bgr|indices|held_out|fraction|seed'
    r'|metainfo)'
    r'(\.\w+)?'
)
# Metrics are read, but not built.
_GROUPS = re.compile(r'test_evaluator(\.\d+)?\.(thresholds|class_counts)')
_TEST_SET = re.compile(r'test_dataloader(\.dataset(\..*)?)?')
# Set by tools/analysis/tradeoff.py itself.
_ROUTING = re.compile(r'model\.test_cfg\.(mode|threshold|expert_logits)')


def options_of_test(
    file: str | Path, run: dict, given: dict | None = None, of_model: bool = False
) -> dict:
    """Select the options of a test to apply to a config of the user.

    Args:
        file (str | Path): The file of predictions.
        run (dict): Origin of the predictions.
        given (dict, optional): ``--cfg-options`` of the user, which take
            precedence. Defaults to None.
        of_model (bool): Whether the whole config is used, not only its test
            set and class groups. Defaults to False.

    Returns:
        dict: Options by dotted key: those of the user, and those of the file
        that set paths, subsets or class groups to plain values.

    Raises:
        UserError: If the test had another option that matters, which the
            user has to repeat.
    """
    given = given or {}
    taken = {}
    for key, value in run.get('options', {}).items():
        if key in given:
            continue
        if (_DATA.fullmatch(key) or _GROUPS.fullmatch(key)) and _is_plain(value):
            taken[key] = value
        elif _TEST_SET.fullmatch(key) or (
            of_model and not _ROUTING.fullmatch(key) and not HOUSEKEEPING.fullmatch(key)
        ):
            raise UserError(
                f'{file}: the test had the option {key}={value!r:.60}, which is '
                'not read from a file because it can choose what is built. If '
                f'it is intended, repeat it: --cfg-options {key}=VALUE'
            )
    return {**taken, **given}


def _is_plain(value: Any) -> bool:
    """Whether this is a value or a list of values, without a URL."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return all(
        isinstance(v, (bool, int, float, str, type(None))) and '://' not in str(v) for v in values
    )
