"""A web page that shows which experts an image was given to, and why."""

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain import ImageClassificationInferencer, get_model

from ride_mm.analysis.taxonomy import Taxonomy, deepest_answers
from ride_mm.models.routing import thresholds_by_router
from ride_mm.utils.config_names import home

from .bundle import names_of

_TOP = 5
_MOST_IN_SET = 10


class Outputs(NamedTuple):
    """What all experts and routers say of an image.

    Args:
        logits (np.ndarray): Logits of the experts with all adjustments, (E, K).
        doubts (np.ndarray): Probabilities with which the routers ask the next
            expert, (E - 1, ).
    """

    logits: np.ndarray
    doubts: np.ndarray


class TorchSource:
    """A checkpoint, run by PyTorch.

    Args:
        cfg (Config): The config.
        checkpoint (str): Its checkpoint.
    """

    def __init__(self, cfg: Config, checkpoint: str) -> None:
        model = get_model(cfg, pretrained=checkpoint, device='cpu')
        self.model, self.classes = model, names_of(model)
        routers = model.num_experts - 1
        self.thresholds = thresholds_by_router(model.test_cfg['threshold'], routers)
        if not model.routes:  # as if every image asked on
            self.thresholds = [0.0] * routers
        self.sets = model.head.set_thresholds.numpy() if model.gives_sets else None
        model.test_cfg.update(mode='ensemble', expert_logits=True)
        self.pipeline = ImageClassificationInferencer(model).pipeline
        self.compute: Sequence[float] = ()

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Outputs:
        """Run all experts on a BGR image, (H, W, 3)."""
        shape = image.shape[:2]
        sample = self.pipeline(dict(img=image, img_shape=shape, ori_shape=shape))
        (found,) = self.model.test_step(default_collate([sample]))
        self.compute = [found.relative_compute] * self.model.num_experts
        if 'router_logits' not in found:
            return Outputs(found.expert_logits.numpy(), np.ones(len(self.thresholds)))
        self.compute = found.routed_compute.tolist()
        return Outputs(found.expert_logits.numpy(), _sigmoid(found.router_logits.numpy()))


class BundleSource:
    """A bundle of ``tools/export.py``, run by onnxruntime.

    Args:
        folder (str | Path): Its folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.bundle = runpy.run_path(str(home() / 'tools' / 'predict.py'))['Bundle'](folder)
        manifest = self.bundle.manifest
        self.classes, self.thresholds = manifest['classes'], manifest['thresholds']
        self.sets = None if manifest['set_thresholds'] is None else manifest['set_thresholds']
        self.compute = manifest['relative_compute']

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run all experts on a BGR image, (H, W, 3)."""
        manifest, (first, *others) = self.bundle.manifest, self.bundle.sessions
        trunk, total, *router = first.run(None, dict(images=self.bundle.preprocess(image)[None]))
        totals, routers = [total], router
        for session in others:
            total, *router = session.run(None, dict(trunk=trunk, total=totals[-1]))
            totals.append(total)
            routers = routers + router
        logits = np.diff(np.concatenate(totals), axis=0, prepend=0) - manifest['offsets']
        logits = logits / manifest['temperature'] + manifest['log_prior']
        doubts = _sigmoid(np.concatenate(routers)) if routers else np.ones(len(self.thresholds))
        return Outputs(logits, doubts)


class Explanation(NamedTuple):
    """The answer for an image, and how it came about.

    Args:
        scores (dict[str, float]): Probabilities of all classes, by name.
        text (str): The number of experts, the compute, the set, the rank, and a
            table of the experts: its answer, that of the experts so far, and
            the probability of the router with its threshold; as Markdown.
    """

    scores: dict[str, float]
    text: str


def explain(
    source: TorchSource | BundleSource,
    image: np.ndarray,
    taxonomy: Taxonomy | None = None,
    confidence: float = 0.9,
) -> Explanation:
    """Classify an image and say which experts were asked.

    Args:
        source (TorchSource | BundleSource): The model.
        image (np.ndarray): An RGB image, (H, W, 3).
        taxonomy (Taxonomy, optional): Ranks of the classes. Defaults to None.
        confidence (float): Probability that an answer at a rank needs. Defaults
            to 0.9.

    Returns:
        Explanation: The answer.
    """
    logits, doubts = source(np.ascontiguousarray(image[..., ::-1]))
    asks = doubts > source.thresholds if len(doubts) else np.zeros(0, dtype=bool)
    used = 1 + int(np.cumprod(asks).sum())
    counts = np.arange(1, len(logits) + 1)[:, None]
    so_far = _softmax(logits.cumsum(0) / counts)
    scores, alone = so_far[used - 1], _softmax(logits)
    rows = ['| expert | its answer | experts so far | router |', '|---|---|---|---|']
    for k in range(len(logits)):
        decision = 'last expert'
        if k < len(doubts):
            sign, verb = '>≤'[not asks[k]], 'go on' if asks[k] else 'stop'
            decision = f'{doubts[k]:.3f} {sign} {source.thresholds[k]:.3f}: {verb}'
        if k >= used:
            decision = '*not asked*'
        answers = (_name_best(values[k], source.classes) for values in (alone, so_far))
        rows.append(f'| {k + 1} | {" | ".join(answers)} | {decision} |')
    compute = source.compute[used - 1]
    lines = [f'**{used} of {len(logits)} experts**, {compute:.2f} of the compute of all experts.']
    if source.sets is not None:
        lines.append(_describe_set(scores, np.asarray(source.sets), source.classes))
    if taxonomy is not None:
        lines.append(_describe_rank(scores, taxonomy, confidence))
    named = {name: float(score) for name, score in zip(source.classes, scores)}
    return Explanation(named, '\n\n'.join([*lines, '\n'.join(rows)]))


def build_page(
    source: TorchSource | BundleSource,
    title: str,
    taxonomy: Taxonomy | None = None,
    confidence: float = 0.9,
) -> Any:
    """Build the web page.

    Args:
        source (TorchSource | BundleSource): The model.
        title (str): Title of the page.
        taxonomy (Taxonomy, optional): See :func:`explain`. Defaults to None.
        confidence (float): See :func:`explain`. Defaults to 0.9.

    Returns:
        gradio.Interface: The page, to be launched.
    """
    import gradio

    def answer(image: np.ndarray | None) -> tuple:
        if image is None:
            return None, ''
        return tuple(explain(source, image, taxonomy, confidence))

    return gradio.Interface(
        answer,
        gradio.Image(label='Image', type='numpy', height=320),
        [gradio.Label(label='Class', num_top_classes=_TOP), gradio.Markdown()],
        title=title,
        live=True,
        flagging_mode='never',
        analytics_enabled=False,
    )


def _describe_set(scores: np.ndarray, thresholds: np.ndarray, classes: Sequence[str]) -> str:
    chosen = scores >= thresholds
    chosen[scores.argmax()] = True
    labels = [label for label in np.argsort(-scores) if chosen[label]]
    names = ', '.join(classes[label] for label in labels[:_MOST_IN_SET])
    more = len(labels) - _MOST_IN_SET
    return f'Set: {names}' + (f' and {more} more' if more > 0 else '')


def _describe_rank(scores: np.ndarray, taxonomy: Taxonomy, confidence: float) -> str:
    (rank,), (group,), (score,) = deepest_answers(scores[None], taxonomy, confidence)
    if group < 0:
        return f'No rank has a group of probability {confidence:g}.'
    return f'{taxonomy.ranks[rank]}: {taxonomy.names[rank][group]} ({score:.1%})'


def _name_best(scores: np.ndarray, classes: Sequence[str]) -> str:
    return f'{classes[int(scores.argmax())]} ({scores.max():.1%})'


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
