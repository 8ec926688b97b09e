"""Compare two configs, ignoring what does not affect training."""

import json
import re
from re import Pattern
from typing import Any

from mmengine.config import Config

# Keys that do not affect what is trained.
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
    """Find the settings in which two configs differ.

    Args:
        own (Config): The first config.
        cfg (Config): The second config.
        ignored (Pattern): Keys to ignore. Defaults to those that do not affect
            what is trained.

    Returns:
        dict: The values in ``cfg`` by dotted key, None where a key is missing
        there.
    """
    options = {}

    def compare(old, new, key):
        if old == new or ignored.fullmatch(key):
            return
        if isinstance(new, dict) and isinstance(old, dict | None):
            old = old or {}
            parts = [(name, old.get(name), new.get(name)) for name in dict(old, **new)]
        elif (
            isinstance(old, list)
            and isinstance(new, list)
            and len(old) == len(new)
            and all(isinstance(part, dict) for part in old + new)
        ):
            parts = zip(range(len(new)), old, new)
        else:
            options[key] = new
            return
        for name, old_part, new_part in parts:
            compare(old_part, new_part, f'{key}.{name}' if key else name)

    # in JSON, tuples are lists
    old, new = (json.loads(json.dumps(part.to_dict(), default=str)) for part in (own, cfg))
    compare(old, new, '')
    return dict(sorted(options.items()))
