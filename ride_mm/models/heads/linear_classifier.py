from mmpretrain.registry import MODELS
from torch import nn


@MODELS.register_module()
class LinearClassifier(nn.Linear):
    """A linear classifier with bias, as an alternative to the cosine classifier.

    Args:
        in_features (int): Dimensions of the feature.
        out_features (int): Number of classes.
    """
