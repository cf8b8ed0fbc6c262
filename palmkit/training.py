"""Training and evaluation on embeddings, at the paper's settings."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from palmkit.chunks import predict_batch, take_gradient

TEST_BATCH = 128


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite. The message names the step; `losses` has all losses."""

    def __init__(self, message, losses=()):
        super().__init__(message)
        self.losses = list(losses)


def as_tensors(method, features, labels, stream=False) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels on the model's device and in its type, checked.

    stream: whether they are for `fit`. Then they may be [epochs, n, dim], and a method that learns
    inside the audio encoder has another width. Raises ValueError.
    """
    if not hasattr(method, "model"):
        raise ValueError(
            f"{type(method).__name__} has no model: call "
            "super().__init__(model, class_names, seed) first in its __init__"
        )
    model = method.model
    features = torch.as_tensor(features).to(model.device, model.dtype)
    labels = torch.as_tensor(labels, dtype=torch.long).to(model.device)
    check_shapes(features, labels, method.input_dim if stream else model.dim, stream)
    if not features.isfinite().all():
        raise ValueError("features hold NaN or infinite values")
    classes = len(method.class_names)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}"
        )
    return features, labels


def check_shapes(features, labels, dim: int, stream: bool) -> None:
    axes = (2, 3) if stream else (2,)
    fit_together = features.ndim in axes and labels.shape == features.shape[-2:-1]
    if not fit_together or features.shape[-1] != dim or len(labels) == 0:
        raise ValueError(
            f"features must be [n, {dim}] and labels [n], with the same n of 1 or more; got "
            f"{list(features.shape)} and {list(labels.shape)}"
        )


def shuffled(n: int, batch_size: int, epochs: int, seed: int):
    """Index batches, shuffled in each epoch. The last batch of an epoch may be shorter."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(n, generator=generator).split(batch_size)


def fit(method, features, labels, **settings) -> list[float]:
    """Train `method` on a support set, in place. Returns the loss of each step, before its update.

    features [n, dim], or [epochs, n, dim] (a stream: other features in each epoch, see
    `palmkit.protocols.streams`); labels [n].
    settings: those of `sgd`, or of the method's own `fit`. The defaults are the paper's.
    For a method with nothing to learn this returns []. Raises ValueError for features and labels
    whose shapes do not match, and TrainingDiverged.
    """
    features, labels = as_tensors(method, features, labels, stream=True)
    return as_losses(method, method.fit(features, labels, **settings))


def as_losses(method, losses) -> list[float]:
    """What a method's `fit` returned, as a list of numbers; None is []. Raises ValueError."""
    try:
        return [float(loss) for loss in ([] if losses is None else losses)]
    except (TypeError, ValueError):
        name = type(method).__name__
        raise ValueError(
            f"fit of {name} returned {type(losses).__name__}: return the list of its steps' "
            "losses, or [] if it has no steps"
        ) from None


def sgd(
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
    """SGD and cross-entropy as published. Returns the loss of each step, before its update.

    features [n, dim] or [epochs, n, dim], labels [n]: tensors that `fit` has checked.
    batches: an explicit sequence of index arrays, one a step, instead of shuffling.
    on_epoch: called after each epoch with its number, from 1, and its mean loss; an exception that
    it raises ends the training. Raises TrainingDiverged.
    """
    if features.ndim == 3 and (batches is not None or len(features) != epochs):
        raise ValueError(
            f"features of {len(features)} epochs need epochs={len(features)}, not {epochs}, "
            "and no batches"
        )
    groups = [group for group in method.parameter_groups() if group["params"]]
    if not groups:
        return []
    method.init_from_support(features if features.ndim == 2 else features.mean(0), labels)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum)
    steps = -(-len(labels) // batch_size)  # of an epoch
    if batches is None:
        batches = shuffled(len(labels), batch_size, epochs, seed)
    losses = []
    for step, index in enumerate(batches):
        index = torch.as_tensor(index, dtype=torch.long).to(features.device)
        table = features if features.ndim == 2 else features[step // steps]
        batch = (table[index], labels[index])
        losses.append(take_gradient(method, mean_loss, optimizer.zero_grad, *batch))
        optimizer.step()
        if on_epoch and (step + 1) % steps == 0:
            on_epoch((step + 1) // steps, torch.stack(losses[-steps:]).mean().item())
    losses = torch.stack(losses).tolist() if losses else []  # one transfer, not one a step
    check_finite(losses, lr)
    return losses


def mean_loss(method, inputs, labels) -> torch.Tensor:
    """Cross-entropy of what `fit` takes, [b, input_dim], and labels [b]; the mean over clips."""
    logits = check_logits(method, method(method.encode_inputs(inputs)), len(labels))
    return F.cross_entropy(logits, labels)


def check_finite(losses: list[float], lr: float) -> None:
    """Raise TrainingDiverged if a loss is NaN or infinite."""
    finite = np.isfinite(losses)
    if not finite.all():
        step = int(np.argmin(finite))
        raise TrainingDiverged(f"the loss is not finite from step {step} on; lower lr={lr}", losses)


@torch.no_grad()
def predict(method, features) -> torch.Tensor:
    """Logits [n, classes] in batches of 128, on the CPU.

    A transductive method gets all clips in one batch: its logits of a clip depend on the others.
    """
    features = torch.as_tensor(features).to(method.model.device, method.model.dtype)
    together = getattr(method, "transductive", False)
    batches = [features] if together else features.split(TEST_BATCH)
    return torch.cat([predict_batch(method, batch, check_logits).cpu() for batch in batches])


def check_logits(method, logits, n: int, origin="forward") -> torch.Tensor:
    """Logits of n clips as they are. Raises ValueError if they are no numbers [n, classes].

    origin: the function of the method that returned them.
    """
    shape = [n, len(method.class_names)]
    is_tensor = isinstance(logits, torch.Tensor) and logits.is_floating_point()
    if not is_tensor or [*logits.shape] != shape:
        given = type(logits).__name__
        if isinstance(logits, torch.Tensor):
            given = f"{logits.dtype} {[*logits.shape]}"
        raise ValueError(
            f"{origin} of {type(method).__name__} returned {given}: return logits, "
            f"a floating-point tensor {shape} [clips, classes]"
        )
    return logits


def score(logits: torch.Tensor, labels) -> dict:
    """accuracy, f1, precision and recall (macro) and loss, of logits [n, classes] and labels [n].

    The loss is computed as published: the mean over batches of 128 of the batch means.
    """
    from sklearn.metrics import precision_recall_fscore_support  # half a second, only for a score

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
    """The scores of `score` for a method on features [n, dim] and labels [n]."""
    features, labels = as_tensors(method, features, labels)
    return score(predict(method, features), labels)
