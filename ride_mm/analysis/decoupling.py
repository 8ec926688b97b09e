"""Classifiers computed from a trained model without training.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed
Recognition", ICLR 2020.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from ride_mm.evaluation.long_tail import long_tail_accuracy
from ride_mm.models import CosineClassifier, LinearClassifier, RIDEClassifier
from ride_mm.models.losses.logit_adjustment_loss import log_prior
from ride_mm.structures import gather_labels
from ride_mm.utils.errors import UserError
from ride_mm.utils.progress import track

# Maps tau to the predicted classes of all images, (N, ).
Predictor = Callable[[float], torch.Tensor]


def tau_normalized(weight: torch.Tensor, tau: float) -> torch.Tensor:
    """Divide the weights of each class by their norm to the power of ``tau``.

    Args:
        weight (torch.Tensor): Weights, (K, D).
        tau (float): 0 keeps the weights, 1 makes all norms equal.

    Returns:
        torch.Tensor: Normalized weights, (K, D).
    """
    return weight / weight.norm(dim=1, keepdim=True) ** tau


def choose_tau(
    predict: Predictor, labels: np.ndarray, class_counts: Sequence[int], taus: Sequence[float]
) -> tuple[float, dict[float, dict]]:
    """Find the tau with the highest balanced accuracy.

    Args:
        predict (Callable): Maps tau to the predicted classes, (N, ).
        labels (np.ndarray): True labels, (N, ).
        class_counts (Sequence[int]): Training images per class, (K, ).
        taus (Sequence[float]): Candidates.

    Returns:
        tuple[float, dict]: The smallest of the best taus, and the figures of
        :func:`.long_tail_accuracy` for every tau.
    """
    figures = {
        tau: long_tail_accuracy(predict(tau).numpy() == labels, labels, class_counts)
        for tau in sorted(taus)
    }
    return max(figures, key=lambda tau: figures[tau]['balanced']), figures


def tau_normalization(model: RIDEClassifier, loader: DataLoader) -> tuple[Predictor, torch.Tensor]:
    """Prepare the choice of tau for tau-normalization.

    Args:
        model (RIDEClassifier): A model with linear classifiers.
        loader (DataLoader): The validation images.

    Returns:
        tuple: Predictor of the ensemble without biases, and labels, (N, ).

    Raises:
        UserError: If the classifiers are not linear.
    """
    if not isinstance(model.head.classifiers[0], LinearClassifier):
        raise UserError(
            'tau-normalization needs model.head.classifier.type='
            '"LinearClassifier": a CosineClassifier has no norms to divide by'
        )
    batches, labels = zip(*run_batches(model, loader, model.extract_feat))
    features = [torch.cat(columns) for columns in zip(*batches)]
    weights = [layer.weight.detach().cpu() for layer in model.head.classifiers]

    def predict(tau: float) -> torch.Tensor:
        logits = [x @ tau_normalized(weight, tau).T for x, weight in zip(features, weights)]
        return torch.stack(logits).sum(0).argmax(1)

    return predict, torch.cat(labels)


def logit_adjustment(
    model: RIDEClassifier, loader: DataLoader, class_counts: Sequence[int]
) -> tuple[Predictor, torch.Tensor]:
    """Prepare the choice of tau for post-hoc logit adjustment.

    Args:
        model (RIDEClassifier): The model; its ``test_cfg`` applies.
        loader (DataLoader): The validation images.
        class_counts (Sequence[int]): Training images per class, (K, ).

    Returns:
        tuple: Predictor and labels, (N, ).
    """
    logits, labels = mean_logits(model, loader)
    prior = log_prior(class_counts).to(logits)
    return (lambda tau: (logits - tau * prior).argmax(1)), labels


def mean_logits(model: RIDEClassifier, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the logits of a test before any adjustment.

    Args:
        model (RIDEClassifier): The model; its ``test_cfg`` applies.
        loader (DataLoader): The images.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Mean logits of the experts used,
        (N, K), and labels, (N, ), on the CPU.
    """
    found, labels = zip(*run_batches(model, loader, model.infer))
    return torch.cat([logits for logits, *_ in found]), torch.cat(labels)


@torch.no_grad()
def tau_normalize_(model: RIDEClassifier, tau: float) -> None:
    """Normalize the linear classifiers in place and set their biases to 0."""
    for classifier in model.head.classifiers:
        classifier.weight.copy_(tau_normalized(classifier.weight, tau))
        classifier.bias.zero_()


@torch.no_grad()
def run_images(
    model: RIDEClassifier, loader: DataLoader, function: Callable
) -> Iterator[tuple[list, Sequence]]:
    """Apply a function to preprocessed images, batch by batch.

    Args:
        model (RIDEClassifier): The model, set to evaluation mode.
        loader (DataLoader): The images.
        function (Callable): Maps images, (B, C, H, W), to a sequence of
            tensors or None.

    Yields:
        tuple[list, Sequence]: The outputs of the function on the CPU, and the
        B data samples.
    """
    model.eval()
    for batch in track(loader, description='Running the experts'):
        batch = model.data_preprocessor(batch)
        outputs = function(batch['inputs'])
        yield [out if out is None else out.cpu() for out in outputs], batch['data_samples']


def run_batches(
    model: RIDEClassifier, loader: DataLoader, function: Callable
) -> Iterator[tuple[list, torch.Tensor]]:
    """As :func:`run_images`, for images with labels.

    Yields:
        tuple[list, torch.Tensor]: The outputs of the function, and labels,
        (B, ), on the CPU.
    """
    for outputs, samples in run_images(model, loader, function):
        yield outputs, gather_labels(samples).cpu()


def nearest_class_means(
    model: RIDEClassifier, loader: DataLoader, num_classes: int | None = None, unit: bool = False
) -> list[torch.Tensor]:
    """Compute the mean feature of every class for each expert.

    Args:
        model (RIDEClassifier): A model with E experts and cosine classifiers.
        loader (DataLoader): The training images, without augmentation.
        num_classes (int, optional): Number of classes K of the images. Defaults
            to None, which means those of the model.
        unit (bool): Whether features are divided by their norm. Defaults to
            False.

    Returns:
        list[torch.Tensor]: E tensors, (K, D), float64.

    Raises:
        UserError: If the classifiers are not cosine classifiers, or a class
            has no images.
    """
    if not isinstance(model.head.classifiers[0], CosineClassifier):
        raise UserError(
            'the nearest class mean needs model.head.classifier=dict(type='
            '"CosineClassifier"), whose weights become the means'
        )
    num_classes = num_classes or model.head.num_classes
    images = torch.zeros(num_classes, dtype=torch.float64)
    sums = [images.new_zeros(())] * model.num_experts
    for features, labels in run_batches(model, loader, model.extract_feat):
        one_hot = F.one_hot(labels, num_classes).double()
        images += one_hot.sum(0)
        doubles = [
            F.normalize(feature.double()) if unit else feature.double() for feature in features
        ]
        sums = [total + one_hot.T @ feature for total, feature in zip(sums, doubles)]
    empty = (images == 0).nonzero().flatten().tolist()
    if empty:
        raise UserError(f'{len(empty)} classes have no training images, the first is {empty[0]}')
    return [total / images.unsqueeze(1) for total in sums]


@torch.no_grad()
def add_classes_(model: RIDEClassifier, means: Sequence[torch.Tensor], scale: float) -> None:
    """Append classes to the cosine classifiers in place.

    The weights of a class are its mean unit feature, normalized (Qi et al.,
    "Low-Shot Learning with Imprinted Weights", CVPR 2018). They are closer to
    all features than trained weights are, so the logits are scaled down.
    Prediction sets, which hold for the old classes, are removed.

    Args:
        model (RIDEClassifier): A model with E experts and cosine classifiers.
        means (Sequence[torch.Tensor]): The mean features of the N new classes,
            E tensors, (N, D).
        scale (float): Factor on the logits of the new classes, relative to the
            mean of those of the old classes.
    """
    head = model.head
    for classifier, mean in zip(head.classifiers, means):
        rows = F.normalize(mean).to(classifier.weight)
        classifier.weight = nn.Parameter(torch.cat([classifier.weight, rows]))
    old = head.scales
    if old is None:
        old = head.class_weights.new_ones(head.num_experts, head.num_classes)
    new = scale * old.mean(dim=1, keepdim=True).expand(-1, len(means[0]))
    head.scales = nn.Parameter(torch.cat([old, new], dim=1))
    head.num_classes += len(means[0])
    head.set_thresholds = head.set_settings = None
