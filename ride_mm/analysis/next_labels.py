"""Which unlabelled images to label next."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from ride_mm.models import RIDEClassifier
from ride_mm.utils.errors import UserError

from .decoupling import run_images

MEASURES = ('router', 'margin', 'disagreement')


class Doubts(NamedTuple):
    """What a model says about N images without labels.

    Args:
        pred_label (np.ndarray): Predicted labels, (N, ).
        doubt (np.ndarray): How doubtful the model is, (N, ).
    """

    pred_label: np.ndarray
    doubt: np.ndarray


def margin(scores: torch.Tensor) -> torch.Tensor:
    """One minus the difference between the two highest probabilities.

    Scheffer et al., "Active Hidden Markov Models for Information Extraction",
    IDA 2001.

    Args:
        scores (torch.Tensor): Probabilities, (N, K).

    Returns:
        torch.Tensor: From 0 to 1, (N, ).
    """
    first, second = scores.topk(2, dim=1).values.unbind(1)
    return 1 - (first - second)


def disagreement(expert_scores: torch.Tensor) -> torch.Tensor:
    """The Jensen-Shannon divergence between the probabilities of the experts.

    The entropy of their mean minus their mean entropy, which is the mutual
    information of BALD (Houlsby et al., 2011) for an ensemble.

    Args:
        expert_scores (torch.Tensor): Probabilities, (E, N, K).

    Returns:
        torch.Tensor: From 0 to ``log(E)``, (N, ).
    """
    of_mean = torch.special.entr(expert_scores.mean(0)).sum(-1)
    return of_mean - torch.special.entr(expert_scores).sum(-1).mean(0)


def router_doubt(router_logits: torch.Tensor) -> torch.Tensor:
    """The lowest of the routers' probabilities that another expert is needed.

    An image reaches the last expert only if every router asks for the next one.

    Args:
        router_logits (torch.Tensor): Logits of the routers, (E - 1, N).

    Returns:
        torch.Tensor: From 0 to 1, (N, ).
    """
    return router_logits.min(0).values.sigmoid()


def measure_doubt(model: RIDEClassifier, loader: DataLoader, by: str) -> Doubts:
    """Run all experts on images without labels.

    Args:
        model (RIDEClassifier): A model with ``test_cfg.expert_logits``.
        loader (DataLoader): The images.
        by (str): One of ``MEASURES``.

    Returns:
        Doubts: For the images in their order.

    Raises:
        UserError: If the model lacks what is measured.
    """
    if by == 'disagreement' and model.num_experts == 1:
        raise UserError('--by disagreement needs at least 2 experts, found 1')
    if by == 'router' and not model.head.has_trained_router:
        raise UserError(
            '--by router needs a trained router, which the checkpoint lacks: use --by margin'
        )
    head, tau, prior = model.head, *map(model.test_cfg.get, ('logit_adjustment', 'prior'))

    def outputs(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = model.infer(inputs)
        scores = head.scores(found.mean_logits, tau, prior)
        if by == 'margin':
            doubt = margin(scores)
        elif by == 'disagreement':
            doubt = disagreement(head.score_logits(found.expert_logits, tau, prior).softmax(-1))
        else:
            doubt = router_doubt(cast(torch.Tensor, found.router_logits))
        return scores.argmax(1), doubt

    batches = [found for found, _ in run_images(model, loader, outputs)]
    return Doubts(*(torch.cat(column).numpy() for column in zip(*batches)))


def for_smallest_classes(doubts: Doubts, class_counts: Sequence[int], number: int) -> np.ndarray:
    """Choose each image for the class that has the fewest, itself the most doubtful.

    A class has its training images and those chosen so far by their predicted
    label (after Bengar et al., "Class-Balanced Active Learning for Image
    Classification", WACV 2022).

    Args:
        doubts (Doubts): Of N images.
        class_counts (Sequence[int]): Training images per class, (K, ).
        number (int): How many images to choose.

    Returns:
        np.ndarray: Indices, (min(number, N), ).
    """
    order = np.argsort(-doubts.doubt, kind='stable')
    queues = {
        label: iter(order[doubts.pred_label[order] == label]) for label in range(len(class_counts))
    }
    sizes = [(count, label) for label, count in enumerate(class_counts)]
    heapq.heapify(sizes)
    chosen: list[int] = []
    while sizes and len(chosen) < number:
        count, label = sizes[0]
        index = next(queues[label], None)
        if index is None:
            heapq.heappop(sizes)
            continue
        chosen.append(int(index))
        heapq.heapreplace(sizes, (count + 1, label))
    return np.array(chosen, dtype=np.int64)
