import logging
from collections.abc import Sequence
from functools import cache

import torch
from mmengine.logging import print_log
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ride_mm.structures import BatchDataSample, TrunkMaps, gather_labels, gather_scores
from ride_mm.utils.errors import UserError
from ride_mm.utils.option_types import check_options

from ..heads.expert_router import RouterInputs
from ..macs import macs_by_part, relative_compute
from ..routing import thresholds_by_router
from ..utils import CompiledStep, counting_augments
from .fit_check import check_parts_fit, with_num_experts
from .inference import Inference, check_test_cfg, infer, make_test_cfg
from .layer_depth import layer_depth
from .lora import refuse_lora, save_lora_whole
from .normalization import warn_of_other_normalization
from .pretrained import naming_missing_prefix, spread_backbone
from .state_check import check_state_dict
from .teacher import Teacher

STAGES = ('experts', 'classifier', 'router')


@cache
def _say_why_no_sets(tau: float, *thresholds: float) -> None:
    """Say once which settings the sets of a checkpoint hold for."""
    print_log(
        f'No prediction sets: those of the checkpoint hold for logit_adjustment={tau:g}, '
        f'threshold={[round(value, 6) for value in thresholds]} (0: all experts) and prior=None '
        'in model.test_cfg',
        logger='current',
        level=logging.WARNING,
    )


@MODELS.register_module()
class RIDEClassifier(ImageClassifier):
    """RIDE: experts on a shared trunk, with routers between them.

    Wang et al., "Long-tailed Recognition by Routing Diverse
    Distribution-Aware Experts", ICLR 2021.

    Args:
        backbone (dict): Config of the shared trunk.
        neck (dict): Config of the experts' tails, a ``MultiExpertNeck``.
        head (dict): Config of classifiers, losses and router, a
            ``RIDEHead``.
        num_experts (int, optional): Number of experts, for neck and head.
            Defaults to None, which means that both configs set it.
        stage (str): What to train: "experts" (all but the router),
            "classifier" (only the experts' classifiers, or their scales if
            ``head.learn_scales`` is set) or "router" (only the router).
            Defaults to "experts".
        freeze_trunk (bool): Whether the trunk is frozen in stage "experts"
            too: no gradients, and eval mode. Defaults to False.
        teacher (dict, optional): Options of the :class:`.Teacher` for
            distillation, used in training only. Defaults to None.
        test_cfg (dict, optional): How to predict, see :func:`.make_test_cfg`.
            Defaults to None, which means its defaults.
        compile (bool | dict): Whether to compile networks and losses of the
            training step, or the options of ``torch.compile`` for it.
            Defaults to False.
        data_preprocessor (dict, optional): Config of the preprocessor; its
            default type is :class:`.RIDEDataPreprocessor`. Defaults to None.
        **kwargs: Other options of :class:`mmpretrain.ImageClassifier`,
            including ``init_cfg=dict(type='Pretrained', checkpoint=...,
            prefix='backbone')``: the weights of a whole backbone, for the
            trunk and every expert.

    Raises:
        UserError: If options are unknown or inconsistent.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        num_experts: int | None = None,
        stage: str = 'experts',
        freeze_trunk: bool = False,
        teacher: dict | None = None,
        test_cfg: dict | None = None,
        compile: bool | dict = False,
        data_preprocessor: dict | None = None,
        **kwargs,
    ) -> None:
        refuse_lora(neck, head)
        if num_experts is not None:
            neck = with_num_experts('neck', neck, num_experts)
            head = with_num_experts('head', head, num_experts)
        super().__init__(
            backbone,
            neck,
            head,
            data_preprocessor={'type': 'RIDEDataPreprocessor', **(data_preprocessor or {})},
            **kwargs,
        )
        if getattr(self.data_preprocessor, 'num_classes', 0) is None:
            self.data_preprocessor.num_classes = self.head.num_classes
        check_parts_fit(self.backbone, self.neck, self.head)
        check_options('model.test_cfg', make_test_cfg, test_cfg or {})
        self.test_cfg = make_test_cfg(**test_cfg or {})
        check_test_cfg(
            self.test_cfg, self.num_experts, self.head.router is not None, self.head.num_classes
        )
        self.teacher = None
        if teacher:
            check_options('model.teacher', Teacher, teacher, whole=True)
            self.teacher = Teacher(**teacher)
        # The function, not the bound method: a copy of the model must run on
        # its own weights.
        self._step = CompiledStep(RIDEClassifier._losses, compile)
        self.freeze_trunk = freeze_trunk
        self._macs: dict[tuple[int, ...], dict[str, list[int]]] = {}
        if not compile:
            # The layout in which CPUs and tensor cores compute convolutions.
            # The compiler chooses its own, and that of torch 2.11 fails on this.
            self.to(memory_format=torch.channels_last)
        self.set_stage(stage)
        save_lora_whole(self)
        self.register_load_state_dict_pre_hook(spread_backbone)
        self.register_load_state_dict_pre_hook(check_state_dict)

    def init_weights(self) -> None:
        """Initialize the weights.

        Raises:
            UserError: If a pretrained checkpoint has no weights with the
                ``prefix``.
        """
        with naming_missing_prefix():
            super().init_weights()
        warn_of_other_normalization(self)

    @property
    def num_experts(self) -> int:
        """int: Number of experts."""
        return self.head.num_experts

    @property
    def adjusts_logits(self) -> bool:
        """bool: Whether predictions depend on the class counts."""
        return self.test_cfg['logit_adjustment'] != 0

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Set the class counts of losses and batch augmentations.

        Args:
            class_counts (Sequence[int]): Training images per class, (K, ), all
                > 0.

        Raises:
            UserError: If the counts do not fit the head.
        """
        self.head.set_class_counts(class_counts)
        for augment in counting_augments(self):
            augment.set_class_counts(class_counts)

    def set_stage(self, stage: str) -> None:
        """Choose what to train; everything else is frozen.

        A distributed wrapper must be rebuilt afterwards. Stage "router" cannot
        be left: what it has frozen stays frozen.

        Args:
            stage (str): "experts", "classifier" or "router".

        Raises:
            UserError: If the stage is unknown, or there is no router to train.
        """
        if stage not in STAGES:
            raise UserError(f'model.stage="{stage}" is unknown, expected one of {STAGES}')
        router = self.head.router
        if stage == 'router' and router is None:
            raise UserError('model.stage="router" needs model.head.router')
        if stage != 'experts':
            self.requires_grad_(False)
        elif self.freeze_trunk:
            self.backbone.requires_grad_(False)
        if stage == 'classifier':
            self.head.set_classifiers_trainable()
        if router is not None:
            router.requires_grad_(stage == 'router')
        self.stage = stage
        self.train(self.training)

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """See :func:`.layer_depth.layer_depth`.

        mmpretrain's ``LearningRateDecayOptimWrapperConstructor`` calls it.
        """
        return layer_depth(param_name, self.backbone, self.neck.experts[0])

    def train(self, mode: bool = True) -> 'RIDEClassifier':
        """Set the mode; layers frozen by the stage stay in eval mode."""
        super().train(mode and self.stage == 'experts')
        self.training = mode
        if self.freeze_trunk:
            self.backbone.eval()
        if self.stage == 'classifier':
            self.head.classifiers.train(mode)
        if self.stage == 'router':
            self.head.router.train(mode)
            # Routers learn from unmixed images, whatever SwitchRecipeHook sets.
            self.data_preprocessor.batch_augments = None
        return self

    def extract_feat(self, inputs: torch.Tensor | TrunkMaps, stage: str = 'neck') -> tuple:
        """As mmpretrain's; :class:`.TrunkMaps` go on to the experts."""
        if isinstance(inputs, TrunkMaps):
            return self.neck(inputs)
        return super().extract_feat(inputs, stage)

    def loss(
        self,
        inputs: torch.Tensor | TrunkMaps | RouterInputs,
        data_samples: Sequence[DataSample] | BatchDataSample = (),
    ) -> dict[str, torch.Tensor]:
        """Losses of the current stage.

        Args:
            inputs (torch.Tensor | TrunkMaps | RouterInputs): Images, (N, C, H,
                W), what the trunk gives for them, or, in stage "router",
                cached :meth:`router_inputs`.
            data_samples (Sequence[DataSample] | BatchDataSample): Samples with
                ``gt_label``, and ``gt_score`` where images are mixed; not
                needed with :class:`.RouterInputs`.

        Returns:
            dict[str, torch.Tensor]: ``loss_cls``, ``loss_diversity`` and,
            with a teacher, ``loss_distill`` in stages "experts" and
            "classifier", ``loss_router`` in stage "router"; also the parts of
            ``loss_cls``, see :meth:`.RIDEHead.expert_loss`.
        """
        if isinstance(inputs, RouterInputs):
            return dict(loss_router=self.head.router.loss(inputs))
        labels = gather_labels(data_samples)
        weights, divisor = self.head.sample_weights(labels)
        kept = isinstance(inputs, TrunkMaps)
        tensor = inputs.maps if isinstance(inputs, TrunkMaps) else inputs
        teacher_logits = None
        if self.teacher is not None and self.stage != 'router':
            teacher_logits = self.teacher.logits(tensor, student=self)
        scores = gather_scores(data_samples)
        return self._step(self, tensor, kept, labels, weights, divisor, scores, teacher_logits)

    def parse_losses(
        self, losses: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As MMEngine's; the losses of the experts are logged as ``expert/loss_1``
        and so on: MMEngine averages logged values that are called a loss."""
        total, log = super().parse_losses(losses)
        return total, {key.replace('expert/cls_', 'expert/loss_'): log[key] for key in log}

    def _losses(
        self,
        inputs: torch.Tensor,
        kept: bool,
        labels: torch.Tensor,
        weights: torch.Tensor,
        divisor: torch.Tensor,
        soft_labels: torch.Tensor | None,
        teacher_logits: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """The tensor-only part of the step, compiled as one graph."""
        images = TrunkMaps(inputs) if kept else inputs
        if self.stage == 'router':
            return dict(loss_router=self.head.router.loss(self.router_inputs(images, labels)))
        logits = self.head.expert_logits(self.extract_feat(images))
        losses = self.head.expert_loss(logits, labels, weights, divisor, soft_labels)
        if self.teacher is None:
            return losses
        losses['loss_distill'] = self.teacher.loss(logits, teacher_logits)
        factor = self.num_experts if self.teacher.multiply_losses else 1
        return {name: factor * loss for name, loss in losses.items()}

    @torch.no_grad()
    def router_inputs(self, inputs: torch.Tensor | TrunkMaps, labels: torch.Tensor) -> RouterInputs:
        """Run the frozen experts to get the inputs of the routers.

        Args:
            inputs (torch.Tensor | TrunkMaps): Images, (N, C, H, W), or what the
                trunk gives for them.
            labels (torch.Tensor): Class indices, (N, ).

        Returns:
            RouterInputs: Router inputs of the N images.
        """
        feats = self.extract_feat(inputs)
        logits = self.head.expert_logits(feats)
        return self.head.router.inputs(feats, logits, labels)

    def predict(
        self, inputs: torch.Tensor, data_samples: list[DataSample] | None = None, **kwargs
    ) -> list[DataSample]:
        """Predict with all experts, or with those that the router selects.

        Args:
            inputs (torch.Tensor): Images, (N, C, H, W).
            data_samples (list[DataSample], optional): Samples to add the
                predictions to. Defaults to None, which means new ones.

        Returns:
            list[DataSample]: Samples with ``pred_score`` (softmax, (K, )),
            ``pred_label`` and ``num_experts_used``, and, if they were fitted,
            ``pred_set``, the labels in the image's set, (S, ). With
            ``test_cfg.expert_logits`` also ``expert_logits``, (E, K), the
            softmax of whose mean is ``pred_score``, and, if there is a
            trained router, ``router_logits``, (E - 1, ).

        Raises:
            UserError: If it is traced or exported.
        """
        found = self.infer(inputs)
        tau, prior = self.test_cfg['logit_adjustment'], self.test_cfg['prior']
        scores = self.head.scores(found.mean_logits, tau, prior)
        labels = scores.argmax(dim=1, keepdim=True)
        sets = None
        if self.gives_sets:
            sets = (scores >= self.head.set_thresholds).scatter(1, labels, True)
        expert_logits = None
        if found.expert_logits is not None:
            expert_logits = self.head.score_logits(found.expert_logits, tau, prior)
        if data_samples is None:
            data_samples = [DataSample() for _ in range(len(inputs))]
        for index, (sample, num_used) in enumerate(zip(data_samples, found.used.tolist())):
            # Copies: pickling a row of a batch writes the whole batch.
            sample.set_pred_score(scores[index].clone())
            sample.set_pred_label(labels[index].clone())
            sample.num_experts_used = num_used
            if sets is not None:
                sample.pred_set = sets[index].nonzero().flatten()
            if expert_logits is not None:
                sample.expert_logits = expert_logits[:, index].clone()
            if found.router_logits is not None:
                sample.router_logits = found.router_logits[:, index].clone()
        return data_samples

    def test_step(self, data: dict | tuple | list) -> list[DataSample]:
        """Predict a batch and add the compute of each image.

        Args:
            data (dict | tuple | list): A batch of the dataloader.

        Returns:
            list[DataSample]: As from :meth:`predict`, with the fields of
            :meth:`add_compute`.
        """
        batch: dict = self.data_preprocessor(data, False)
        samples = self._run_forward(batch, mode='predict')
        self.add_compute(samples, tuple(batch['inputs'].shape[1:]))
        return samples

    val_step = test_step

    def add_compute(self, data_samples: list[DataSample], image_shape: tuple[int, ...]) -> None:
        """Add the compute of each image to its data sample.

        The multiply-accumulates of the parts are counted once per image shape,
        by running the parts.

        Args:
            data_samples (list[DataSample]): As :meth:`predict` returns them.
                Each gets ``relative_compute``, 1 for the ensemble without a
                router, and with ``router_logits`` also ``routed_compute``,
                (E, ): the relative compute if the image were routed and used
                1..E experts.
            image_shape (tuple[int]): (C, H, W).
        """
        if image_shape not in self._macs:
            self._macs[image_shape] = macs_by_part(self, image_shape)
        macs = self._macs[image_shape]
        spent = relative_compute(macs, self.routes)
        routed = torch.tensor(relative_compute(macs, routed=True), dtype=torch.float64)
        for sample in data_samples:
            sample.relative_compute = spent[int(sample.num_experts_used) - 1]
            if 'router_logits' in sample:
                sample.routed_compute = routed

    def infer(self, inputs: torch.Tensor) -> Inference:
        """The part of :meth:`predict` without data samples, see :func:`infer`."""
        return infer(self, inputs)

    @property
    def set_settings(self) -> list[float]:
        """list[float]: The settings that prediction sets depend on, (E, ): tau of
        the logit adjustment, and the thresholds of the routers."""
        thresholds = thresholds_by_router(self.test_cfg['threshold'], self.num_experts - 1)
        if not self.routes:  # as if every image asked on
            thresholds = [0.0] * len(thresholds)
        return [self.test_cfg['logit_adjustment'], *thresholds]

    @property
    def gives_sets(self) -> bool:
        """bool: Whether predictions have sets: those of the checkpoint hold for the
        settings that they were fitted with, and for the frequencies of the
        validation set."""
        fitted = self.head.set_settings
        if fitted is None:
            return False
        same = torch.allclose(fitted, fitted.new_tensor(self.set_settings))
        if same and self.test_cfg['prior'] is None:
            return True
        _say_why_no_sets(*fitted.tolist())
        return False

    @property
    def routes(self) -> bool:
        """bool: Whether predictions are routed."""
        mode = self.test_cfg['mode']
        return mode == 'route' or (mode == 'auto' and self.head.has_trained_router)
