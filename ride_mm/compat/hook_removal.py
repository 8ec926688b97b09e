"""``default_hooks.NAME=None`` removes any default hook.

In mmengine 0.10.7 and onedl-mmengine 0.10.12,
``Runner.register_default_hooks`` accepts None for its own six hooks and fails
with an ``AssertionError`` for any other. No upstream issue is known. Delete
this file once it accepts None for every name.
"""

from functools import wraps

from mmengine.hooks import Hook
from mmengine.runner import Runner

# The hooks that MMEngine adds itself.
_ALWAYS_THERE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def install_hook_removal() -> None:
    """Let ``default_hooks=dict(two_stage=None)`` remove a hook of the base config."""
    original = Runner.register_default_hooks

    @wraps(original)
    def register_default_hooks(self, hooks: dict[str, Hook | dict | None] | None = None) -> None:
        original(
            self,
            {
                name: hook
                for name, hook in (hooks or {}).items()
                if hook is not None or name in _ALWAYS_THERE
            },
        )

    Runner.register_default_hooks = register_default_hooks
