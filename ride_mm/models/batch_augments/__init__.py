from .remix import Remix

__all__ = ['Remix']
