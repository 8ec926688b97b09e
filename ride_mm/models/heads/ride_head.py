from typing import Dict, Optional, Sequence, Tuple

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModule, ModuleList
from mmpretrain.registry import MODELS

from ride_mm.datasets.class_counts import check_class_counts
from ride_mm.utils.errors import UserError


def deferred_weights(class_counts: Sequence[int],
                     beta: float = 0.9999) -> torch.Tensor:
    """Weights by the effective number of images, ``(1 - b) / (1 - b^n)``.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
    CVPR 2019, eq. 4, scaled to sum to the number of classes as LDAM-DRW
    does.

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.
        beta (float): 0 weights all classes alike, towards 1 by the inverse
            count. Defaults to 0.9999.

    Returns:
        torch.Tensor: Weights, (K, ), float64.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(counts) / weights.sum()


@MODELS.register_module()
class RIDEHead(BaseModule):
    """Classifiers, losses and router of RIDE's experts.

    Args:
        num_classes (int): Number of classes K.
        in_channels (int): Dimensions D of an expert's feature.
        num_experts (int): Number of experts E.
        classifier (dict): Config of an expert's classifier, which takes
            ``in_features`` and ``out_features``. Defaults to
            ``dict(type='CosineClassifier', scale=30)``.
        loss (dict): Config of the classification loss, the same for each
            expert, with mmpretrain's calling convention. Defaults to
            ``dict(type='LDAMLoss', max_margin=0.5)``.
        diversity (dict, optional): Config of the loss that pushes experts
            apart. Defaults to None.
        router (dict, optional): Config of the router. Defaults to None.
        joint_loss (bool): Whether the classification loss is that of the
            ensemble, once per expert, instead of each expert's own (the
            "collaborative" loss of the official code). Defaults to False.

    Raises:
        UserError: If the router's options do not fit.
    """

    def __init__(self,
                 num_classes: int,
                 in_channels: int,
                 num_experts: int,
                 classifier: dict = dict(type='CosineClassifier', scale=30),
                 loss: dict = dict(type='LDAMLoss', max_margin=0.5),
                 diversity: Optional[dict] = None,
                 router: Optional[dict] = None,
                 joint_loss: bool = False,
                 init_cfg=None) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.num_experts = num_experts
        self.joint_loss = joint_loss
        self.classifiers = ModuleList(
            MODELS.build(
                dict(
                    classifier,
                    in_features=in_channels,
                    out_features=num_classes)) for _ in range(num_experts))
        self.loss_module = MODELS.build(loss)
        if getattr(self.loss_module, 'scale', 1.) is None:
            # Margins are cosines; logits are cosines times this.
            self.loss_module.scale = getattr(self.classifiers[0], 'scale', 1.)
        self.diversity = None if diversity is None else MODELS.build(diversity)
        self.router = None
        if router is not None:
            self.router = MODELS.build(
                dict(
                    router,
                    num_experts=num_experts,
                    in_channels=in_channels,
                    num_classes=num_classes))
        self.class_counts = None
        # Set anew in every run, so it has no place in a checkpoint.
        self.register_buffer(
            'class_weights', torch.ones(num_classes), persistent=False)

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Give the losses the training images per class, (K, ).

        Raises:
            UserError: If the counts do not fit ``num_classes``, or a class
                has no images.
        """
        check_class_counts(class_counts, self.num_classes)
        self.class_counts = list(class_counts)
        for module in (self.loss_module, self.diversity):
            if hasattr(module, 'set_class_counts'):
                module.set_class_counts(class_counts)
                module.to(self.class_weights.device)

    def set_reweighting(self, beta: Optional[float]) -> None:
        """Weight classes by their effective number (None: all alike).

        Args:
            beta (float, optional): See :func:`deferred_weights`.

        Raises:
            UserError: If there are no class counts to weight by.
        """
        if beta is not None and self.class_counts is None:
            raise UserError('Re-weighting knows no class counts: add '
                            'dict(type="ClassCountsHook") to custom_hooks')
        if beta is None:
            self.class_weights.fill_(1.)
        else:
            self.class_weights.copy_(
                deferred_weights(self.class_counts, beta))
        if self.diversity is not None:
            self.diversity.set_reweighting(beta is not None)

    def sample_weights(
            self,
            labels: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Weights of the images and what their weighted losses' sum is
        divided by.

        The divisor is the mean over ranks of the sum of weights: averaged
        over ranks, the losses are the weighted mean of the whole batch.

        Args:
            labels (torch.Tensor): Class indices, (N, ).

        Returns:
            tuple[torch.Tensor, torch.Tensor]: (N, ) and scalar.
        """
        weights = self.class_weights[labels]
        divisor = weights.sum()
        all_reduce(divisor, op='mean')
        return weights, divisor

    def pre_logits(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Features of all experts side by side, (N, E * D)."""
        return torch.cat(tuple(feats), dim=1)

    def expert_logits(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the experts, (E, N, K), for E features (N, D)."""
        logits = torch.stack([
            classifier(feat)
            for classifier, feat in zip(self.classifiers, feats)
        ])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def forward(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Mean logits of all experts, (N, K)."""
        return self.expert_logits(feats).mean(0)

    def expert_loss(self, logits: torch.Tensor, labels: torch.Tensor,
                    weights: torch.Tensor,
                    divisor: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Losses of stage "experts".

        Args:
            logits (torch.Tensor): Logits of the experts, (E, N, K).
            labels (torch.Tensor): Class indices, (N, ).
            weights (torch.Tensor): See :meth:`sample_weights`.
            divisor (torch.Tensor): See :meth:`sample_weights`.

        Returns:
            dict[str, torch.Tensor]: ``loss_cls``, summed over experts, and
            ``loss_diversity`` where it is configured.
        """
        scores = logits
        if self.joint_loss:
            scores = logits.mean(0, keepdim=True).expand_as(logits)
        losses = dict(
            loss_cls=sum(
                self.loss_module(
                    score, labels, weight=weights, avg_factor=divisor)
                for score in scores))
        if self.diversity is not None:
            losses['loss_diversity'] = self.diversity(logits)
        return losses
