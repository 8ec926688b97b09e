from mmpretrain.registry import MODELS
from torch import nn


@MODELS.register_module()
class LinearClassifier(nn.Linear):
    """A linear classifier with bias, the plain choice beside the cosine.

    Args:
        in_features (int): Dimensions of the feature.
        out_features (int): Number of classes.
    """
