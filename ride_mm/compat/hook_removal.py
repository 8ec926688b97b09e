"""``None`` takes any default hook out of a run, not only MMEngine's own."""

from functools import wraps

from mmengine.hooks import Hook
from mmengine.runner import Runner

# MMEngine 0.10 adds these by itself and fails on None for any other name.
_ALWAYS_THERE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def install_hook_removal() -> None:
    """Let ``default_hooks=dict(two_stage=None)`` take a hook out that the
    base config has."""
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
