"""What is taken of the options that a file of predictions tells.

The file says with which ``--cfg-options`` the test was run. It may come from
anyone, and an option can name what is built and called. So what is built from
a config that the user has named takes plain values of the data alone.
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
# metrics are read here, and not built
_GROUPS = re.compile(r'test_evaluator(\.\d+)?\.(thresholds|class_counts)')
_TEST_SET = re.compile(r'test_dataloader(\.dataset(\..*)?)?')
# what tools/analysis/tradeoff.py sets itself
_ROUTING = re.compile(r'model\.test_cfg\.(mode|threshold|expert_logits)')


def options_of_test(
    file: str | Path, run: dict, given: dict | None = None, of_model: bool = False
) -> dict:
    """Options for a config that the user has named.

    Args:
        file (str | Path): The file of predictions.
        run (dict): Its ``run``, or an empty dict.
        given (dict, optional): ``--cfg-options`` of the user, which come
            first. Defaults to None.
        of_model (bool): Whether the whole config is wanted, and not its test
            set and groups alone. Defaults to False.

    Returns:
        dict: Options by dotted key: those given, and those of the file that
        say with plain values where the data lies, how it was chosen and how
        classes are grouped.

    Raises:
        UserError: If the file tells another option that is wanted. The user
            can repeat it.
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
                f'{file} says that the test had the option '
                f'{key}={value!r:.60}, which is not read from a file, since '
                'it can choose what is built. If it is intended, repeat it: '
                f'--cfg-options {key}=VALUE'
            )
    return {**taken, **given}


def _is_plain(value: Any) -> bool:
    """Whether this is a value, or a list of them, on this machine."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return all(
        isinstance(v, (bool, int, float, str, type(None))) and '://' not in str(v) for v in values
    )
