from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModule, ModuleList
from mmpretrain.registry import MODELS
from torch import nn

from ride_mm.structures import check_class_counts, missing_class_counts
from ride_mm.utils.errors import UserError

from ..losses.class_weights import effective_number_weights
from ..losses.classification_loss import classification_loss
from ..losses.logit_adjustment_loss import log_prior

# Logit of a class that cannot occur: finite, and its probability is 0.
NEVER = -1e4


@MODELS.register_module()
class RIDEHead(BaseModule):
    """Classifiers, losses and routers of RIDE's experts.

    Args:
        num_classes (int): Number of classes K.
        in_channels (int): Dimensions D of an expert's feature.
        num_experts (int): Number of experts E.
        classifier (dict): Config of each expert's classifier, without
            ``in_features`` and ``out_features``. Defaults to
            ``dict(type='CosineClassifier', scale=30)``.
        loss (dict | list[dict]): Config of the experts' classification loss,
            or one config per expert. The losses are called like mmpretrain's.
            Defaults to ``dict(type='LDAMLoss', max_margin=0.5)``.
        diversity (dict, optional): Config of the diversity loss. Defaults to
            None, which means no such loss.
        router (dict, optional): Config of the :class:`.ExpertRouter`. Defaults
            to None, which means no routers.
        joint_loss (bool): Whether to take the loss of the ensemble's logits,
            times E, instead of the sum of the experts' losses (the
            "collaborative" loss of the official code). Defaults to False.
        learn_scales (bool): Whether to multiply the logits of every expert by
            a learned factor per class, which stage "classifier" then trains
            instead of the classifiers (LWS: Kang et al., "Decoupling
            Representation and Classifier for Long-Tailed Recognition", ICLR
            2020). Defaults to False.
        class_counts (Sequence[int], optional): Training images per class.
            Defaults to None, which means that ``ClassCountsHook`` sets them.

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
        # Fitted by tools after training; in a checkpoint only if they are set.
        self.register_buffer('temperature', None)
        self.register_buffer('set_thresholds', None)
        self.register_buffer('set_settings', None)
        # Set in every run, so not part of a checkpoint.
        self.register_buffer('class_weights', torch.ones(num_classes), persistent=False)
        if class_counts is not None:
            self.set_class_counts(class_counts)

    @property
    def has_trained_router(self) -> bool:
        """bool: Whether there is a router that has been trained."""
        return self.router is not None and self.router.trained

    def _build_losses(self, cfg: dict | list[dict]) -> ModuleList:
        """Build one loss per expert, since some, such as SeesawLoss, have state."""
        cfgs = [cfg] * self.num_experts if isinstance(cfg, dict) else cfg
        if len(cfgs) != self.num_experts:
            raise UserError(
                f'model.head.loss lists {len(cfgs)} losses, expected one for each of '
                f'{self.num_experts} experts'
            )
        if self.joint_loss and not isinstance(cfg, dict):
            raise UserError(
                'model.head.joint_loss=True needs one loss for the ensemble, but model.head.loss '
                'is a list'
            )
        losses = ModuleList(map(MODELS.build, cfgs))
        for module in losses.modules():
            if getattr(module, 'scale', 1.0) is None:
                # Margins are given for cosines, which the classifier scales.
                module.scale = getattr(self.classifiers[0], 'scale', 1.0)
        return losses

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Set the training images per class, (K, ), also for the losses.

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
        """Weight the classes by their effective number of images.

        Args:
            beta (float, optional): See :func:`.effective_number_weights`. None
                means equal weights.

        Raises:
            UserError: If the class counts are not known.
        """
        if beta is None:
            self.class_weights.fill_(1.0)
        elif self.class_counts is None:
            raise missing_class_counts('Re-weighting')
        else:
            self.class_weights.copy_(effective_number_weights(self.class_counts, beta))
        if self.diversity is not None:
            self.diversity.set_reweighting(beta is not None)

    def sample_weights(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of the images, and the divisor of their weighted losses.

        The divisor is the sum of the weights, averaged over ranks. The mean of
        the ranks' losses is then the weighted mean over the whole batch.

        Args:
            labels (torch.Tensor): Class indices, (N, ).

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Weights, (N, ), and divisor, a
            scalar.
        """
        weights = self.class_weights[labels]
        divisor = weights.sum()
        all_reduce(divisor, op='mean')
        return weights, divisor

    def pre_logits(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Concatenated features of all experts, (N, E * D)."""
        return torch.cat(tuple(feats), dim=1)

    def expert_logits(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the experts, (E, N, K), for their E features (N, D)."""
        return torch.stack([self.logits_of(index, feat) for index, feat in enumerate(feats)])

    def logits_of(self, index: int, feat: torch.Tensor) -> torch.Tensor:
        """Logits of one expert, (N, K), in fp32 or more, for its feature (N, D)."""
        logits = self.classifiers[index](feat)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.scales is None else logits * self.scales[index]

    def set_classifiers_trainable(self) -> None:
        """Unfreeze the classifiers, or their scales, for stage "classifier"."""
        if self.scales is None:
            self.classifiers.requires_grad_(True)
        else:
            self.scales.requires_grad_(True)

    def forward(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Mean logits of all experts, (N, K)."""
        return self.expert_logits(feats).mean(0)

    def adjust(self, logits: torch.Tensor, tau: float) -> torch.Tensor:
        """Adjust logits for a balanced test set: ``z - tau * log(prior)``.

        Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021,
        eq. 9.

        Args:
            logits (torch.Tensor): Logits, (..., K).
            tau (float): Strength of the adjustment; 0 returns the logits.

        Returns:
            torch.Tensor: Adjusted logits, (..., K).

        Raises:
            UserError: If the class counts are not known.
        """
        if tau == 0:
            return logits
        if self.class_counts is None:
            raise missing_class_counts(f'model.test_cfg.logit_adjustment={tau}')
        return logits - tau * log_prior(self.class_counts).to(logits)

    def score_logits(
        self,
        logits: torch.Tensor,
        tau: float = 0.0,
        prior: Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Turn mean logits into those of the predicted probabilities.

        They are adjusted, divided by the fitted temperature, if any (Guo et
        al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 9), and
        corrected for the frequencies of the classes (Saerens et al.,
        "Adjusting the Outputs of a Classifier to New a Priori Probabilities",
        Neural Computation 2002, eq. 2.4).

        Args:
            logits (torch.Tensor): Logits, (..., K).
            tau (float): See :meth:`adjust`. Defaults to 0.
            prior (Sequence[float], optional): Frequencies of the classes,
                (K, ), in any unit. Defaults to None: all equal.

        Returns:
            torch.Tensor: Logits of the predicted probabilities, (..., K).
        """
        logits = self.adjust(logits, tau)
        if self.temperature is not None:
            logits = logits / self.temperature
        if prior is not None:
            logits = logits + logits.new_tensor(prior).log().clamp(min=NEVER)
        return logits

    def scores(
        self, logits: torch.Tensor, tau: float = 0.0, prior: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Predicted probabilities, (N, K): the softmax of :meth:`score_logits`."""
        return self.score_logits(logits, tau, prior).softmax(dim=1)

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature that divides the logits of predictions."""
        self.temperature = self.class_weights.new_tensor(temperature)
        self.set_thresholds = self.set_settings = None

    def set_prediction_sets(self, thresholds: Sequence[float], settings: Sequence[float]) -> None:
        """Set the thresholds of the sets of labels that predictions get.

        Args:
            thresholds (Sequence[float]): Smallest probability of each class in
                a set, (K, ).
            settings (Sequence[float]): tau of the logit adjustment and the
                thresholds of the routers that they hold for, (E, ).
        """
        self.set_thresholds = self.class_weights.new_tensor(thresholds)
        self.set_settings = self.class_weights.new_tensor(settings)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Load what was fitted; a checkpoint without it resets it."""
        shapes = dict(
            temperature=(), set_thresholds=(self.num_classes,), set_settings=(self.num_experts,)
        )
        for name, shape in shapes.items():
            found = f'{prefix}{name}' in state_dict
            setattr(self, name, self.class_weights.new_ones(shape) if found else None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def expert_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        divisor: torch.Tensor,
        soft_labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of stages "experts" and "classifier".

        Args:
            logits (torch.Tensor): Logits of the experts, (E, N, K).
            labels (torch.Tensor): Class indices, (N, ).
            weights (torch.Tensor): See :meth:`sample_weights`.
            divisor (torch.Tensor): See :meth:`sample_weights`.
            soft_labels (torch.Tensor, optional): Class probabilities of mixed
                images, (N, K). Margins and weights still follow ``labels``.
                Defaults to None.

        Returns:
            dict[str, torch.Tensor]: ``loss_cls``, summed over the experts,
            ``loss_diversity``, if it is configured, and, for the log only,
            ``expert/cls_1`` to ``expert/cls_{E}``, the parts of ``loss_cls``,
            without gradients and without a joint loss.
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
        if not self.joint_loss:
            # MMEngine's total has what is called a loss.
            losses |= {f'expert/cls_{k}': loss.detach() for k, loss in enumerate(of_experts, 1)}
        return losses

    def _fitted_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits that the losses fit to the training images, (E, N, K).

        A loss that adds the prior to the logits hardly depends on the raw
        logits of few-shot classes. On those, the diversity loss would collapse
        each expert onto a different few-shot class.
        """
        return torch.stack(
            [
                module.fitted_logits(score) if hasattr(module, 'fitted_logits') else score
                for module, score in zip(self.losses, logits)
            ]
        )
