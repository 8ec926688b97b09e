from .ride import RIDEClassifier

__all__ = ['RIDEClassifier']
