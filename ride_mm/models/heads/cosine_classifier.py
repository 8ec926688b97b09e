import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import nn

from ..utils import full_precision


@MODELS.register_module()
class CosineClassifier(BaseModule):
    """Logits ``scale * cos(feature, class weight)``, computed in fp32.

    Args:
        in_features (int): Dimensions of the feature.
        out_features (int): Number of classes.
        scale (float): Factor on the cosine. Defaults to 30.
    """

    def __init__(
        self, in_features: int, out_features: int, scale: float = 30.0, init_cfg=None
    ) -> None:
        super().__init__(init_cfg)
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw unit vectors: the norm sets the effective learning rate."""
        with torch.no_grad():
            self.weight.uniform_(-1, 1)
            self.weight.copy_(F.normalize(self.weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, D) to scaled logits (N, K)."""
        with full_precision(x):
            weight = F.normalize(self.weight)
            return self.scale * F.linear(F.normalize(x.to(weight.dtype)), weight)
