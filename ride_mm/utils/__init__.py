"""What all other packages share."""

from .errors import UserError

__all__ = ['UserError']
