"""Training and evaluation on embeddings, at the paper's settings."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support

TEST_BATCH = 128


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite; the message says at which step, `losses` holds all of them."""

    def __init__(self, message, losses=()):
        super().__init__(message)
        self.losses = list(losses)


def as_tensors(method, features, labels, stream=False) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels on the method's device, checked. stream: whether features may be [epochs, n, dim]."""
    device = method.model.device
    features = torch.as_tensor(features, dtype=torch.float32).to(device)
    labels = torch.as_tensor(labels, dtype=torch.long).to(device)
    classes = len(method.class_names)
    dim = method.model.dim
    fits = features.ndim == 2 or (stream and features.ndim == 3)
    if (
        not fits
        or features.shape[-1] != dim
        or labels.shape != features.shape[-2:-1]
        or len(labels) == 0
    ):
        raise ValueError(
            f"features [n, {dim}] and labels [n] do not fit: {list(features.shape)} and {list(labels.shape)}"
        )
    if not features.isfinite().all():
        raise ValueError("features hold NaN or infinite values")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}"
        )
    return features, labels


def shuffled(n: int, batch_size: int, epochs: int, seed: int):
    """Index batches: shuffled each epoch, the last short one kept."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(n, generator=generator).split(batch_size)


def fit(
    method,
    features,
    labels,
    *,
    epochs=50,
    batch_size=16,
    lr=0.05,
    momentum=0.9,
    seed=0,
    batches=None,
    on_epoch=None,
) -> list[float]:
    """Train `method` in place by SGD and cross-entropy; the loss of each step, before its update.

    features [n, dim], or a stream of them [epochs, n, dim] (see `palmkit.released`): what clips sound like in each
    epoch. labels [n]; batches: an explicit sequence of index arrays, one a step, instead of shuffling.
    on_epoch: called after each epoch with its number, from 1, and its mean loss; what it raises ends the training.
    A method with nothing to learn is left alone: []. Raises TrainingDiverged.
    """
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    features, labels = as_tensors(method, features, labels, stream=True)
    if features.ndim == 3 and (batches is not None or len(features) != epochs):
        raise ValueError(
            f"a stream of {len(features)} epochs is for as many, shuffled; not {epochs}, nor batches"
        )
    if not parameters:
        return []
    method.begin(features if features.ndim == 2 else features.mean(0), labels)
    heard, steps = features.expand(epochs, *features.shape[-2:]), -(-len(labels) // batch_size)
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum)
    losses = []
    for step, index in enumerate(
        shuffled(len(labels), batch_size, epochs, seed) if batches is None else batches
    ):
        index = torch.as_tensor(index, dtype=torch.long).to(features.device)
        now = features if batches is not None else heard[step // steps]
        loss = F.cross_entropy(method(now[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if on_epoch and (step + 1) % steps == 0:
            on_epoch((step + 1) // steps, torch.stack(losses[-steps:]).mean().item())
    losses = torch.stack(losses).tolist() if losses else []  # one transfer, not one a step
    if not np.isfinite(losses).all():
        raise TrainingDiverged(
            f"the loss is not finite from step {int(np.argmin(np.isfinite(losses)))} on; lower lr={lr}",
            losses,
        )
    return losses


@torch.no_grad()
def predict(method, features) -> torch.Tensor:
    """Logits [n, classes] in batches of 128, on the CPU."""
    features = torch.as_tensor(features, dtype=torch.float32).to(method.model.device)
    return torch.cat([method(batch).cpu() for batch in features.split(TEST_BATCH)])


def score(logits: torch.Tensor, labels) -> dict:
    """Accuracy, macro F1, precision and recall, and the published loss: the mean of the means of batches of 128."""
    labels = torch.as_tensor(labels).cpu()
    guess = logits.argmax(1)
    pairs = zip(logits.split(TEST_BATCH), labels.split(TEST_BATCH), strict=True)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, guess, average="macro", zero_division=0
    )
    return {
        "accuracy": (guess == labels).double().mean().item(),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "loss": torch.stack([F.cross_entropy(*pair) for pair in pairs]).mean().item(),
    }


def evaluate(method, features, labels) -> dict:
    """accuracy, f1, precision, recall (macro) and loss of `method` on features [n, dim] and labels [n]."""
    features, labels = as_tensors(method, features, labels)
    return score(predict(method, features), labels)
