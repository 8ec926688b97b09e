"""Mixed precision."""

from .amp import AmpOptimWrapper

__all__ = ['AmpOptimWrapper']
