"""Classifiers on frozen features that are computed, not trained.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed
Recognition", ICLR 2020.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from ride_mm.evaluation.long_tail import long_tail_accuracy
from ride_mm.models import CosineClassifier, LinearClassifier, RIDEClassifier
from ride_mm.models.losses.logit_adjustment_loss import log_prior
from ride_mm.structures import gather_labels
from ride_mm.utils.errors import UserError
from ride_mm.utils.progress import track

# Predicts the classes of all images, (N, ), from a tau.
Predictor = Callable[[float], torch.Tensor]


def tau_normalized(weight: torch.Tensor, tau: float) -> torch.Tensor:
    """Divide the weights of each class by the ``tau``-th power of their norm.

    Args:
        weight (torch.Tensor): (K, D).
        tau (float): 0 changes nothing, 1 makes all norms equal.

    Returns:
        torch.Tensor: (K, D).
    """
    return weight / weight.norm(dim=1, keepdim=True) ** tau


def choose_tau(
    predict: Predictor, labels: np.ndarray, class_counts: Sequence[int], taus: Sequence[float]
) -> tuple[float, dict[float, dict]]:
    """Find the tau with the best mean accuracy of all classes.

    Args:
        predict (Callable): Predicts all images, (N, ), from a tau.
        labels (np.ndarray): True labels, (N, ).
        class_counts (Sequence[int]): Training images per class, (K, ).
        taus (Sequence[float]): What to choose from.

    Returns:
        tuple[float, dict]: The smallest of the best taus, and for every tau
        what ``long_tail_accuracy`` says.
    """
    figures = {
        tau: long_tail_accuracy(predict(tau).numpy() == labels, labels, class_counts)
        for tau in sorted(taus)
    }
    return max(figures, key=lambda tau: figures[tau]['balanced']), figures


def tau_normalization(model: RIDEClassifier, loader: DataLoader) -> tuple[Predictor, torch.Tensor]:
    """Prepare the search for tau-normalization's tau.

    Args:
        model (RIDEClassifier): With linear classifiers.
        loader (DataLoader): What tau is chosen on.

    Returns:
        tuple: Predictor of the ensemble, and labels, (N, ).

    Raises:
        UserError: If the classifiers are not linear.
    """
    if not isinstance(model.head.classifiers[0], LinearClassifier):
        raise UserError(
            'tau-normalization needs model.head.classifier.type='
            '"LinearClassifier": a CosineClassifier has no norms to divide by'
        )
    features, labels = zip(*run_batches(model, loader, model.extract_feat))
    features = [torch.cat(columns) for columns in zip(*features)]
    weights = [layer.weight.detach().cpu() for layer in model.head.classifiers]

    def predict(tau: float) -> torch.Tensor:
        logits = sum(
            feature @ tau_normalized(weight, tau).T for feature, weight in zip(features, weights)
        )
        return logits.argmax(1)

    return predict, torch.cat(labels)


def logit_adjustment(
    model: RIDEClassifier, loader: DataLoader, class_counts: Sequence[int]
) -> tuple[Predictor, torch.Tensor]:
    """Prepare the search for post-hoc logit adjustment's tau.

    Args:
        model (RIDEClassifier): Predicts as its ``test_cfg`` says.
        loader (DataLoader): What tau is chosen on.
        class_counts (Sequence[int]): Training images per class, (K, ).

    Returns:
        tuple: Predictor and labels, (N, ).
    """
    logits, labels = zip(*run_batches(model, loader, model.infer))
    logits = torch.cat([mean for mean, *_ in logits])
    prior = log_prior(class_counts).to(logits)
    return (lambda tau: (logits - tau * prior).argmax(1)), torch.cat(labels)


@torch.no_grad()
def tau_normalize_(model: RIDEClassifier, tau: float) -> None:
    """Normalize a model's linear classifiers, in place, without bias."""
    for classifier in model.head.classifiers:
        classifier.weight.copy_(tau_normalized(classifier.weight, tau))
        classifier.bias.zero_()


@torch.no_grad()
def run_batches(
    model: RIDEClassifier, loader: DataLoader, function: Callable
) -> Iterator[tuple[list, torch.Tensor]]:
    """Run a function of images, batch by batch.

    Args:
        model (RIDEClassifier): Whose preprocessor the images go through.
        loader (DataLoader): The images.
        function (Callable): From images, (B, C, H, W), to several tensors
            or None.

    Yields:
        tuple[list, torch.Tensor]: What it returns, and labels, (B, ), on the
        CPU.
    """
    model.eval()
    for batch in track(loader, description='Running the experts'):
        batch = model.data_preprocessor(batch)
        outputs = function(batch['inputs'])
        labels = gather_labels(batch['data_samples'])
        yield [out if out is None else out.cpu() for out in outputs], labels.cpu()


def nearest_class_means(model: RIDEClassifier, loader: DataLoader) -> list[torch.Tensor]:
    """Mean feature of every class, for each expert.

    Args:
        model (RIDEClassifier): With E experts and K classes.
        loader (DataLoader): Of the training set, without augmentation.

    Returns:
        list[torch.Tensor]: E times (K, D), float64.

    Raises:
        UserError: If the classifiers are not cosines, or a class has no
            images.
    """
    if not isinstance(model.head.classifiers[0], CosineClassifier):
        raise UserError(
            'the nearest class mean needs model.head.classifier=dict(type='
            '"CosineClassifier"), whose weights become the means'
        )
    num_classes = model.head.num_classes
    images = torch.zeros(num_classes, dtype=torch.float64)
    sums = [0.0] * model.num_experts
    for features, labels in run_batches(model, loader, model.extract_feat):
        one_hot = F.one_hot(labels, num_classes).double()
        images += one_hot.sum(0)
        sums = [total + one_hot.T @ feature.double() for total, feature in zip(sums, features)]
    empty = (images == 0).nonzero().flatten().tolist()
    if empty:
        raise UserError(f'{len(empty)} classes have no training image, the first is {empty[0]}')
    return [total / images.unsqueeze(1) for total in sums]
