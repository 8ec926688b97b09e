"""Mixtures of two images."""

from .remix import Remix

__all__ = ['Remix']
