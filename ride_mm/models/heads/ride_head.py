from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModule, ModuleList
from mmpretrain.registry import MODELS
from torch import nn

from ride_mm.structures import check_class_counts
from ride_mm.utils.errors import UserError

from ..losses.class_weights import effective_number_weights
from ..losses.classification_loss import classification_loss
from ..losses.logit_adjustment_loss import log_prior


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
        loss (dict | list[dict]): Config of every expert's classification loss,
            or one config per expert, with mmpretrain's calling convention.
            Defaults to ``dict(type='LDAMLoss', max_margin=0.5)``.
        diversity (dict, optional): Config of the diversity loss. Defaults to
            None.
        router (dict, optional): Config of the router. Defaults to None.
        joint_loss (bool): Whether the classification loss is that of the
            ensemble, once per expert, instead of one for each expert (the
            "collaborative" loss of the official code). Defaults to False.
        learn_scales (bool): Whether to multiply the logits of every expert by
            a learned factor per class, which stage "classifier" then trains
            instead of the classifiers (LWS: Kang et al., "Decoupling
            Representation and Classifier for Long-Tailed Recognition", ICLR
            2020). Defaults to False.
        class_counts (Sequence[int], optional): Training images per class; None
            means that ``ClassCountsHook`` sets them. Defaults to None.

    Raises:
        UserError: If options are inconsistent.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_experts: int,
        classifier: dict = dict(type='CosineClassifier', scale=30),
        loss: dict | list[dict] = dict(type='LDAMLoss', max_margin=0.5),
        diversity: dict | None = None,
        router: dict | None = None,
        joint_loss: bool = False,
        learn_scales: bool = False,
        class_counts: Sequence[int] | None = None,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.num_experts = num_experts
        self.joint_loss = joint_loss
        self.classifiers = ModuleList(
            MODELS.build(dict(classifier, in_features=in_channels, out_features=num_classes))
            for _ in range(num_experts)
        )
        self.scales = None
        if learn_scales:
            self.scales = nn.Parameter(torch.ones(num_experts, num_classes))
        self.losses = self._build_losses(loss)
        self.diversity = None if diversity is None else MODELS.build(diversity)
        for module in (*self.losses, self.diversity):
            if hasattr(module, 'set_num_classes'):
                module.set_num_classes(num_classes)
        self.router = None
        if router is not None:
            self.router = MODELS.build(
                dict(
                    router,
                    num_experts=num_experts,
                    in_channels=in_channels,
                    num_classes=num_classes,
                )
            )
        self.class_counts: list[int] | None = None
        # What a tool has fitted; part of a checkpoint as soon as it is there.
        self.register_buffer('temperature', None)
        # Set anew in every run, so it has no place in a checkpoint.
        self.register_buffer('class_weights', torch.ones(num_classes), persistent=False)
        if class_counts is not None:
            self.set_class_counts(class_counts)

    @property
    def has_trained_router(self) -> bool:
        """bool: Whether there is a router that has been trained."""
        return self.router is not None and self.router.trained

    def _build_losses(self, cfg: dict | list[dict]) -> ModuleList:
        """One loss per expert, since some, such as SeesawLoss, have a
        state."""
        cfgs = [cfg] * self.num_experts if isinstance(cfg, dict) else cfg
        if len(cfgs) != self.num_experts:
            raise UserError(
                f'model.head.loss lists {len(cfgs)} losses, expected one for '
                f'each of {self.num_experts} experts'
            )
        if self.joint_loss and not isinstance(cfg, dict):
            raise UserError(
                'model.head.joint_loss=True needs one loss for '
                'the ensemble, but model.head.loss is a list'
            )
        losses = ModuleList(map(MODELS.build, cfgs))
        for module in losses.modules():
            if getattr(module, 'scale', 1.0) is None:
                # Margins are cosines; logits are cosines times this.
                module.scale = getattr(self.classifiers[0], 'scale', 1.0)
        return losses

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Set the class counts of the losses, (K, ).

        Raises:
            UserError: If the counts do not fit ``num_classes``, or a class
                has no images.
        """
        check_class_counts(class_counts, self.num_classes)
        self.class_counts = list(class_counts)
        for module in (*self.losses, self.diversity):
            if hasattr(module, 'set_class_counts'):
                module.set_class_counts(class_counts)

    def set_reweighting(self, beta: float | None) -> None:
        """Weight classes by their effective number (None: equal weights).

        Args:
            beta (float, optional): See
                :func:`effective_number_weights`.

        Raises:
            UserError: If there are no class counts to weight by.
        """
        if beta is None:
            self.class_weights.fill_(1.0)
        elif self.class_counts is None:
            raise UserError(
                'Re-weighting has no class counts: add '
                'class_counts=dict(type="ClassCountsHook") to default_hooks'
            )
        else:
            self.class_weights.copy_(effective_number_weights(self.class_counts, beta))
        if self.diversity is not None:
            self.diversity.set_reweighting(beta is not None)

    def sample_weights(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of the images and the divisor of their weighted sum of
        losses.

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
        """Concatenated features of all experts, (N, E * D)."""
        return torch.cat(tuple(feats), dim=1)

    def expert_logits(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the experts, (E, N, K), for E features (N, D)."""
        return torch.stack([self.logits_of(index, feat) for index, feat in enumerate(feats)])

    def logits_of(self, index: int, feat: torch.Tensor) -> torch.Tensor:
        """Logits of one expert in fp32 or more, (N, K), for its feature,
        (N, D)."""
        logits = self.classifiers[index](feat)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.scales is None else logits * self.scales[index]

    def set_classifiers_trainable(self) -> None:
        """Unfreeze the classifiers, or their scales, for stage
        "classifier"."""
        if self.scales is None:
            self.classifiers.requires_grad_(True)
        else:
            self.scales.requires_grad_(True)

    def forward(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Mean logits of all experts, (N, K)."""
        return self.expert_logits(feats).mean(0)

    def adjust(self, logits: torch.Tensor, tau: float) -> torch.Tensor:
        """Lower logits by ``tau * log(prior)``, as for a balanced test set.

        Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021,
        eq. 9.

        Args:
            logits (torch.Tensor): (N, K).
            tau (float): 0 changes nothing.

        Returns:
            torch.Tensor: (N, K).

        Raises:
            UserError: If the class counts are not known.
        """
        if tau == 0:
            return logits
        if self.class_counts is None:
            raise UserError(
                f'model.test_cfg.logit_adjustment={tau} has no class counts: '
                'add class_counts=dict(type="ClassCountsHook") to '
                'default_hooks, or set model.head.class_counts'
            )
        return logits - tau * log_prior(self.class_counts).to(logits)

    def score_logits(self, logits: torch.Tensor, tau: float = 0.0) -> torch.Tensor:
        """Logits of the scores: adjusted and divided by the fitted
        temperature.

        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
        eq. 9.

        Args:
            logits (torch.Tensor): (..., K).
            tau (float): See :meth:`adjust`. Defaults to 0.

        Returns:
            torch.Tensor: (..., K).
        """
        logits = self.adjust(logits, tau)
        if self.temperature is not None:
            logits = logits / self.temperature
        return logits

    def scores(self, logits: torch.Tensor, tau: float = 0.0) -> torch.Tensor:
        """Probabilities of the classes, (N, K): the softmax of
        :meth:`score_logits`."""
        return self.score_logits(logits, tau).softmax(dim=1)

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature that divides the logits of predictions."""
        self.temperature = self.class_weights.new_tensor(temperature)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Load the temperature; a checkpoint without one resets it."""
        found = f'{prefix}temperature' in state_dict
        self.temperature = self.class_weights.new_ones(()) if found else None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def expert_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        divisor: torch.Tensor,
        soft_labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of stage "experts".

        Args:
            logits (torch.Tensor): Logits of the experts, (E, N, K).
            labels (torch.Tensor): Class indices, (N, ).
            weights (torch.Tensor): See :meth:`sample_weights`.
            divisor (torch.Tensor): See :meth:`sample_weights`.
            soft_labels (torch.Tensor, optional): Shares of the classes of
                mixed images, (N, K); margins and weights follow ``labels``.
                Defaults to None.

        Returns:
            dict[str, torch.Tensor]: ``loss_cls``, summed over experts, and
            ``loss_diversity`` where it is configured.
        """
        scores = logits
        if self.joint_loss:
            scores = logits.mean(0, keepdim=True).expand_as(logits)
        of_experts = [
            classification_loss(
                module, score, labels, soft_labels, weight=weights, avg_factor=divisor
            )
            for module, score in zip(self.losses, scores)
        ]
        losses = dict(loss_cls=sum(of_experts[1:], of_experts[0]))
        if self.diversity is not None:
            losses['loss_diversity'] = self.diversity(self._fitted_logits(logits))
        return losses

    def _fitted_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits that the losses fit to the training images, (E, N, K).

        A loss that adds the prior hardly depends on the raw logits of the
        tail: on these, the diversity loss would collapse each expert onto a
        different few-shot class.
        """
        return torch.stack(
            [
                module.fitted_logits(score) if hasattr(module, 'fitted_logits') else score
                for module, score in zip(self.losses, logits)
            ]
        )
