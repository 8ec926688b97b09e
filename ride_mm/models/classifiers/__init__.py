"""The whole model: training, prediction and what is loaded into it."""

from .ride import RIDEClassifier

__all__ = ['RIDEClassifier']
