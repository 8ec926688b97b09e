from collections.abc import Sequence

import torch
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ride_mm.structures import BatchDataSample, gather_labels, gather_scores
from ride_mm.utils.errors import UserError
from ride_mm.utils.option_types import check_options

from ..heads.expert_router import RouterInputs
from ..macs import macs_by_part, relative_compute
from ..routing import route, thresholds_by_router
from ..utils import compile_options, counting_augments
from .fit_check import check_parts_fit, with_num_experts
from .inference import Inference, join
from .layer_depth import layer_depth
from .lora import refuse_lora, save_lora_whole
from .pretrained import naming_missing_prefix, spread_backbone
from .recording import is_recorded
from .state_check import check_state_dict
from .teacher import Teacher

STAGES = ('experts', 'classifier', 'router')
MODES = ('auto', 'ensemble', 'route')
# Images that a CPU predicts at once: larger activations than theirs are
# fetched from the system anew, and cleared, by every layer.
_CPU_PIXELS = 2**18


def _channels_last(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.contiguous(memory_format=torch.channels_last)


@MODELS.register_module()
class RIDEClassifier(ImageClassifier):
    """RIDE: experts on a shared trunk, and a router between them.

    Wang et al., "Long-tailed Recognition by Routing Diverse
    Distribution-Aware Experts", ICLR 2021.

    Args:
        backbone (dict): Config of the shared trunk.
        neck (dict): Config of the experts' tails, a ``MultiExpertNeck``.
        head (dict): Config of classifiers, losses and router, a
            ``RIDEHead``.
        num_experts (int, optional): Number of experts, for neck and head.
            Defaults to None, which means that both set it themselves.
        stage (str): What to train: "experts" (all but the router),
            "classifier" (only the experts' classifiers, or their scales if
            ``head.learn_scales`` is set) or "router" (only the router).
            Defaults to "experts".
        teacher (dict, optional): Teacher for distillation, used in training
            only:

            - config (str | dict): Config file of the teacher, any
              classifier of the same classes, or its ``model``.
            - checkpoint (str): Its weights.
            - loss (dict): Config of the loss. Defaults to
              ``dict(type='DistillationLoss')``.
            - multiply_losses (bool): Whether to multiply all losses by the
              number of experts, as the official code does for distillation.
              Defaults to False.

        test_cfg (dict, optional): How to predict:

            - mode (str): "ensemble" runs all experts, "route" only those that
              the router selects, "auto" routes once the router has been
              trained. Defaults to "auto".
            - threshold (float | Sequence[float]): An image continues to the
              next expert if the router's probability exceeds this; one number,
              or one for each of the E - 1 routers. Defaults to 0.5.
            - expert_logits (bool): Whether :meth:`predict` also returns the
              fields marked "on request"; needs mode "ensemble". Defaults to
              False.
            - logit_adjustment (float): tau of the post-hoc adjustment, see
              ``RIDEHead.adjust``; the router gets unadjusted logits. Defaults
              to 0.

        compile (bool | dict): Whether to compile networks and losses of the
            training step, or the options of ``torch.compile`` for it.
            Defaults to False.
        data_preprocessor (dict, optional): Config of the preprocessor; its
            default type is :class:`RIDEDataPreprocessor`. Defaults to None.
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
            data_preprocessor=dict(dict(type='RIDEDataPreprocessor'), **data_preprocessor or {}),
            **kwargs,
        )
        if getattr(self.data_preprocessor, 'num_classes', 0) is None:
            self.data_preprocessor.num_classes = self.head.num_classes
        check_parts_fit(self.backbone, self.neck, self.head)
        test_cfg, teacher = test_cfg or {}, teacher or {}
        check_options('model.test_cfg', RIDEClassifier._check_test_cfg, test_cfg)
        self.test_cfg = self._check_test_cfg(**test_cfg)
        check_options('model.teacher', RIDEClassifier._set_teacher, teacher)
        self._set_teacher(**teacher)
        self._compiled = None
        if compile:
            # The function, not the bound method: a copy of the model must
            # run on its own weights.
            self._compiled = torch.compile(RIDEClassifier._losses, **compile_options(compile))
        self._compiled_sizes = {}
        self._macs = {}
        if not compile:
            # What convolutions on CPUs and tensor cores compute in. The
            # compiler of torch 2.11 fails on it, and chooses for itself.
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

    def _check_test_cfg(
        self,
        mode: str = 'auto',
        threshold: float | Sequence[float] = 0.5,
        expert_logits: bool = False,
        logit_adjustment: float = 0.0,
    ) -> dict:
        if mode not in MODES:
            raise UserError(f'model.test_cfg.mode="{mode}" is unknown, expected one of {MODES}')
        thresholds = thresholds_by_router(threshold, self.num_experts - 1)
        if len(thresholds) != self.num_experts - 1:
            raise UserError(
                f'model.test_cfg.threshold={threshold} must be one number, or '
                f'one for each of {self.num_experts - 1} routers'
            )
        if mode == 'route' and self.head.router is None:
            raise UserError('model.test_cfg.mode="route" needs model.head.router')
        if expert_logits and mode != 'ensemble':
            raise UserError(
                'model.test_cfg.expert_logits=True needs '
                'mode="ensemble": a routed image has no logits of '
                'the experts it skipped'
            )
        return dict(
            mode=mode,
            threshold=threshold,
            expert_logits=expert_logits,
            logit_adjustment=logit_adjustment,
        )

    def _set_teacher(
        self,
        config: str | dict | None = None,
        checkpoint: str | None = None,
        loss: dict = dict(type='DistillationLoss'),
        multiply_losses: bool = False,
    ) -> None:
        if (config is None) != (checkpoint is None):
            raise UserError('model.teacher needs config and checkpoint')
        self.distillation = None if config is None else MODELS.build(loss)
        self._loss_factor = self.num_experts if multiply_losses else 1
        self._teacher = None
        self._teacher_args = (config, checkpoint)

    def _teach(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Logits of the teacher, (N, K), which is loaded on first use: a test
        does not need it."""
        if self.distillation is None or self.stage == 'router':
            return None
        if self._teacher is None:
            self._teacher = Teacher(*self._teacher_args, student=self)
        return self._teacher(inputs)

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

    # ------------------------------------------------------------- training

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
        if stage == 'classifier':
            self.head.set_classifiers_trainable()
        if router is not None:
            router.requires_grad_(stage == 'router')
        self.stage = stage
        self.train(self.training)

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Depth of a parameter in the whole network, for mmpretrain's
        ``LearningRateDecayOptimWrapperConstructor``.

        Args:
            param_name (str): Its name.

        Returns:
            tuple[int, int]: See :func:`layer_depth`.
        """
        return layer_depth(param_name, self.backbone, self.neck.experts[0])

    def train(self, mode: bool = True) -> 'RIDEClassifier':
        """Set the mode; layers frozen by the stage stay in eval mode."""
        super().train(mode and self.stage == 'experts')
        self.training = mode
        if self.stage == 'classifier':
            self.head.classifiers.train(mode)
        if self.stage == 'router':
            self.head.router.train(mode)
            # Which experts an image needs is asked of real images, whatever
            # SwitchRecipeHook has switched on.
            self.data_preprocessor.batch_augments = None
        return self

    def loss(
        self,
        inputs: torch.Tensor | RouterInputs,
        data_samples: list[DataSample] | BatchDataSample | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of the current stage.

        Args:
            inputs (torch.Tensor | RouterInputs): Images, (N, C, H, W), or, in
                stage "router", cached :meth:`router_inputs`.
            data_samples (list[DataSample] | BatchDataSample, optional):
                Samples with ``gt_label``, and ``gt_score`` where images are
                mixed. Defaults to None.

        Returns:
            dict[str, torch.Tensor]: ``loss_cls``, ``loss_diversity`` and,
            with a teacher, ``loss_distill`` in stages "experts" and
            "classifier", ``loss_router`` in stage "router".
        """
        if isinstance(inputs, RouterInputs):
            return dict(loss_router=self.head.router.loss(inputs))
        labels = gather_labels(data_samples)
        args = (
            labels,
            *self.head.sample_weights(labels),
            gather_scores(data_samples),
            self._teach(inputs),
        )
        if self._is_compiled_for(len(inputs)):
            return self._compiled(self, inputs.contiguous(), *args)
        return self._losses(_channels_last(inputs), *args)

    def _is_compiled_for(self, batch_size: int) -> bool:
        """Whether this batch has the usual size: the last, smaller batch of a
        data set is not worth a second graph."""
        return self._compiled is not None and batch_size == (
            self._compiled_sizes.setdefault(self.stage, batch_size)
        )

    def _losses(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        divisor: torch.Tensor,
        soft_labels: torch.Tensor | None,
        teacher_logits: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """The tensor-only part of the step, compiled as one graph."""
        if self.stage != 'router':
            logits = self.head.expert_logits(self.extract_feat(inputs))
            losses = self.head.expert_loss(logits, labels, weights, divisor, soft_labels)
            if teacher_logits is not None:
                losses['loss_distill'] = self.distillation(logits, teacher_logits)
            return {name: self._loss_factor * loss for name, loss in losses.items()}
        return dict(loss_router=self.head.router.loss(self.router_inputs(inputs, labels)))

    @torch.no_grad()
    def router_inputs(self, inputs: torch.Tensor, labels: torch.Tensor) -> RouterInputs:
        """Run the frozen experts to get the inputs of the routers.

        Args:
            inputs (torch.Tensor): Images, (N, C, H, W).
            labels (torch.Tensor): Class indices, (N, ).

        Returns:
            RouterInputs: Router inputs of the N images.
        """
        feats = self.extract_feat(inputs)
        logits = self.head.expert_logits(feats)
        return self.head.router.inputs(feats, logits, labels)

    # ----------------------------------------------------------- prediction

    def forward(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | BatchDataSample | None = None,
        mode: str = 'tensor',
    ) -> torch.Tensor | dict[str, torch.Tensor] | list[DataSample]:
        """Run the model.

        Args:
            inputs (torch.Tensor): Images, (N, C, H, W).
            data_samples (list[DataSample] | BatchDataSample, optional):
                Their labels, for mode "loss". Defaults to None.
            mode (str): "loss", see :meth:`loss`; "predict", see
                :meth:`predict`; or "tensor", the mean logits of all experts,
                (N, K), not routed, adjusted or divided by the temperature.
                This mode can be exported. Defaults to "tensor".

        Returns:
            torch.Tensor | dict[str, torch.Tensor] | list[DataSample]: As
            ``mode`` says.
        """
        return super().forward(inputs, data_samples, mode)

    def predict(
        self, inputs: torch.Tensor, data_samples: list[DataSample] | None = None, **kwargs
    ) -> list[DataSample]:
        """Predict by all experts or by those that the router asks for.

        Args:
            inputs (torch.Tensor): Images, (N, C, H, W).
            data_samples (list[DataSample], optional): To be filled; made
                where there are none.

        Returns:
            list[DataSample]: With ``pred_score`` (softmax, (K, )),
            ``pred_label``, ``num_experts_used`` and, on request,
            ``expert_logits`` (E, K), whose mean is what ``pred_score`` is
            the softmax of; with a trained router also ``router_logits``
            (E - 1, ).

        Raises:
            UserError: If it is traced or exported.
        """
        found = self.infer(inputs)
        scores = self.head.scores(found.mean_logits, self.test_cfg['logit_adjustment'])
        labels = scores.argmax(dim=1, keepdim=True)
        if data_samples is None:
            data_samples = [DataSample() for _ in range(len(inputs))]
        for index, (sample, num_used) in enumerate(zip(data_samples, found.used.tolist())):
            # A copy: pickling a row of a batch writes the whole batch.
            sample.set_pred_score(scores[index].clone())
            sample.set_pred_label(labels[index].clone())
            sample.num_experts_used = num_used
        if self.test_cfg['expert_logits']:
            self._add_experts(data_samples, found)
        return data_samples

    def _add_experts(self, data_samples: list[DataSample], found: Inference) -> None:
        logits = self.head.score_logits(found.expert_logits, self.test_cfg['logit_adjustment'])
        for index, sample in enumerate(data_samples):
            sample.expert_logits = logits[:, index].clone()
            if found.router_logits is not None:
                sample.router_logits = found.router_logits[:, index].clone()

    def test_step(self, data: dict | tuple | list) -> list[DataSample]:
        """Predict a batch and add the compute of each image.

        Args:
            data (dict | tuple | list): A batch of the dataloader.

        Returns:
            list[DataSample]: As from :meth:`predict`, with the fields of
            :meth:`add_compute`.
        """
        data = self.data_preprocessor(data, False)
        samples = self._run_forward(data, mode='predict')
        self.add_compute(samples, tuple(data['inputs'].shape[1:]))
        return samples

    val_step = test_step

    def add_compute(self, data_samples: list[DataSample], image_shape: tuple[int, ...]) -> None:
        """Add the compute of each image to its data sample.

        For each new image shape, the multiply-accumulates of the parts are
        counted once by running them.

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
        spent = relative_compute(macs, self._routes)
        routed = torch.tensor(relative_compute(macs, routed=True), dtype=torch.float64)
        for sample in data_samples:
            sample.relative_compute = spent[int(sample.num_experts_used) - 1]
            if 'router_logits' in sample:
                sample.routed_compute = routed

    def infer(self, inputs: torch.Tensor) -> Inference:
        """The tensor part of :meth:`predict`.

        Args:
            inputs (torch.Tensor): Images, (N, C, H, W).

        Returns:
            Inference: Results of the N images.

        Raises:
            UserError: If it is traced or exported: the graph would freeze the
                routing of the example images.
        """
        if is_recorded():
            raise UserError(
                'mode="predict" cannot be traced or exported: the number of '
                'images and the routing of the example would be frozen in. '
                'Export mode="tensor", the mean logits of all experts: see '
                'docs/export.md'
            )
        parts = (inputs,)
        if inputs.device.type == 'cpu':
            pixels = inputs[0, 0].numel()
            parts = inputs.split(max(1, _CPU_PIXELS // pixels))
        return join([self._infer_part(part) for part in parts])

    def _infer_part(self, inputs: torch.Tensor) -> Inference:
        trunk = self.backbone(_channels_last(inputs))
        if self._routes:
            thresholds = thresholds_by_router(self.test_cfg['threshold'], self.num_experts - 1)
            return Inference(
                *route(
                    trunk[-1],
                    self.neck.run_expert,
                    self.head.logits_of,
                    self.head.router,
                    thresholds,
                )
            )
        feats = self.neck(trunk)
        logits = self.head.expert_logits(feats)
        used = torch.full((len(inputs),), self.num_experts, device=inputs.device)
        if not self.test_cfg['expert_logits']:
            return Inference(logits.mean(0), used)
        router_logits = None
        if self._has_trained_router:
            router_logits = self.head.router.all_logits(feats, logits)
        return Inference(logits.mean(0), used, logits, router_logits)

    @property
    def _has_trained_router(self) -> bool:
        return self.head.router is not None and self.head.router.trained

    @property
    def _routes(self) -> bool:
        mode = self.test_cfg['mode']
        return mode == 'route' or (mode == 'auto' and self._has_trained_router)
