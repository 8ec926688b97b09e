"""Classifiers, the router, and the head that holds them."""

from .cosine_classifier import CosineClassifier
from .expert_router import ExpertRouter, RouterInputs
from .linear_classifier import LinearClassifier
from .ride_head import RIDEHead

__all__ = ['CosineClassifier', 'ExpertRouter', 'LinearClassifier', 'RIDEHead', 'RouterInputs']
