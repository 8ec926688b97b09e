"""The text of a config is formatted once, not for every checkpoint.

In mmengine 0.10.7 and onedl-mmengine 0.10.12, ``Runner.save_checkpoint`` stores
``cfg.pretty_text``, which yapf formats anew each time. That takes seconds, and
``StopSignalHook`` makes a checkpoint after each epoch. No upstream issue is known.
Delete this file once MMEngine keeps the text.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mmengine.config.config as mmengine_config


class LastFormatted:
    """A formatter that returns its last result again for the same code.

    Args:
        format_code (Callable): yapf's ``FormatCode``.
    """

    def __init__(self, format_code: Callable[..., tuple[str, bool]]) -> None:
        self.format_code = format_code
        self.code: str | None = None

    def __call__(self, code: str, **style: Any) -> tuple[str, bool]:
        if code != self.code:
            self.result = self.format_code(code, **style)
            self.code = code
        return self.result


@lru_cache
def install_config_text() -> None:
    """Make MMEngine format the text of a config only when it has changed."""
    mmengine_config.FormatCode = LastFormatted(mmengine_config.FormatCode)
