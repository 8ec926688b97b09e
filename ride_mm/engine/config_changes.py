"""What two configs differ in, apart from what does not matter."""

import json
import re
from re import Pattern
from typing import Any

from mmengine.config import Config

# Where the data lies, what is kept and printed, and by whom: other values of
# these do not change what is trained.
DATA_ACCESS = re.compile(
    r'(.*\.)?(data_root|check_integrity|num_workers|pin_memory'
    r'|persistent_workers)(\..*)?'
)
HOUSEKEEPING = re.compile(
    DATA_ACCESS.pattern + '|(work_dir|launcher|load_from|resume|log_level'
    r'|visualizer|vis_backends|env_cfg|model_wrapper_cfg|randomness\.seed'
    r'|default_hooks\.(checkpoint|data_check|logger|non_finite|schedule'
    r'|stop_signal|validation_check|visualization))(\..*)?'
)


def config_changes(own: Config, cfg: Config, ignored: Pattern = HOUSEKEEPING) -> dict[str, Any]:
    """The options, by dotted key, that lead from one config to another.

    Args:
        own (Config): The one config.
        cfg (Config): The other one.
        ignored (Pattern): Keys that do not matter. Defaults to where the
            data lies and what is kept and printed.

    Returns:
        dict: The values in ``cfg``, None where a key is missing there.
    """
    options = {}

    def compare(old, new, key):
        if old == new or ignored.fullmatch(key):
            return
        if old is None and isinstance(new, dict):
            old = {}
        if isinstance(old, dict) and isinstance(new, dict):
            parts = [(name, old.get(name), new.get(name)) for name in dict(old, **new)]
        elif _are_alike(old, new):
            parts = zip(range(len(new)), old, new)
        else:
            options[key] = new
            return
        for name, old_part, new_part in parts:
            compare(old_part, new_part, f'{key}.{name}' if key else name)

    compare(_plain(own), _plain(cfg), '')
    return dict(sorted(options.items()))


def _are_alike(old: Any, new: Any) -> bool:
    """Whether these are lists of as many dicts, to compare one by one."""
    return (
        isinstance(old, list)
        and isinstance(new, list)
        and len(old) == len(new)
        and all(isinstance(part, dict) for part in old + new)
    )


def _plain(cfg: Config) -> dict:
    """A config as JSON knows it: tuples are lists."""
    return json.loads(json.dumps(cfg.to_dict(), default=str))
