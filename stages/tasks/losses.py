"""What a training lowers: the loss of each row, for one label out of several, for sets of labels and for numbers.

Each function here returns another, from logits [b x k] float32 and targets [b …] to losses [b]. Without gradients, in
validation, that is the plain loss of the kind of target (cross entropy, binary cross entropy, squared error), so that
trainings with different losses can be compared by it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from stages.common.display import display, listed
from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams

Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
GAMMA = 2.0  # that of Lin et al. 2017
MOST_WEIGHT = 20.0  # of the rows that have a rare label: a label of a few rows would drown all others
MOST_NAMED = 10  # labels in a message


def for_classes(params: FinetuneParams, labels: Mapping[str, int], counts: Sequence[int]) -> Losses:
    """Return the loss of class numbers [b] int64: cross entropy or focal loss, times the weight of the row's label.

    `labels` are the numbers of the labels, `counts` the training rows of each, by number.
    """
    weights = label_weights(params, sorted(labels, key=labels.__getitem__), counts)

    def losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return functional.cross_entropy(logits, targets, reduction="none")
        if params.loss == "focal":
            values = focal_losses(logits, targets, _gamma(params))
        else:
            smoothing = params.label_smoothing_factor
            values = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        return values if weights is None else values * weights.to(values.device)[targets]

    return losses


def for_sets(params: FinetuneParams, names: Sequence[str], targets: Sequence[Sequence[float]]) -> Losses:
    """Return the loss of sets of labels [b x k], 1 for a label of the set: the mean over the labels of a loss of each.

    That of a label is binary cross entropy, or the focal loss -(1 - p)ᵞ log p of the probability p of what is true
    (Lin et al. 2017). Where the label is in the set, `class_weights: balanced` multiplies it by the training rows
    without the label over those with it, at most 20; weights by name multiply the whole loss of a label. `names` are in
    the order of the outputs, `targets` those of the training rows.
    """
    positive = by_name = None
    if params.class_weights == "balanced":
        rows = np.asarray(targets, dtype=np.float64).sum(axis=0)  # with the label, [k]
        positive = torch.tensor(balanced(rows, len(targets))).float()
    elif isinstance(params.class_weights, dict):
        by_name = label_weights(params, names, ())

    def losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = targets.to(logits.dtype)
        if not torch.is_grad_enabled():
            return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=-1)
        weight, pos_weight = (None if some is None else some.to(logits.device) for some in (by_name, positive))
        values = functional.binary_cross_entropy_with_logits(
            logits, targets, weight=weight, pos_weight=pos_weight, reduction="none"
        )
        if params.loss == "focal":
            values = values * (_gamma(params) * functional.logsigmoid((1 - 2 * targets) * logits)).exp()
        return values.mean(dim=-1)

    return losses


def balanced(rows: np.ndarray, of: int) -> np.ndarray:
    """Return the weight [k] of rows with a label, by how many of the training rows these are."""
    return np.minimum((of - rows) / np.maximum(rows, 1), MOST_WEIGHT)


def for_numbers(params: FinetuneParams) -> Losses:
    """Return the loss of numbers [b], in standard deviations, from logits [b x 1]: squared, Huber's or absolute error.

    Huber's is the square up to an error of `huber_delta`, and rises in a straight line from there (Huber 1964).
    """

    def losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        values, targets = logits.squeeze(-1), targets.to(logits.dtype)
        if torch.is_grad_enabled() and params.loss == "huber":
            return functional.huber_loss(values, targets, reduction="none", delta=params.huber_delta)
        if torch.is_grad_enabled() and params.loss == "mae":
            return functional.l1_loss(values, targets, reduction="none")
        return functional.mse_loss(values, targets, reduction="none")

    return losses


def focal_losses(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return -(1 - p)ᵞ log p [b] for the probability p of each row's label (Lin et al. 2017, arXiv:1708.02002).

    Logits are [b x k] float32, labels [b] int64. Gamma: how much less rows count that are nearly certain; 0 is cross
    entropy.
    """
    logs = logits.log_softmax(dim=-1)  # [b x k]
    own = labels.unsqueeze(-1)
    # log(1 - p) as the sum of the others: 1 - p itself is 0 for a certain row, where its power has no gradient.
    doubt = logs.scatter(-1, own, -torch.inf).logsumexp(dim=-1)
    return -(gamma * doubt).exp() * logs.gather(-1, own).squeeze(-1)


def label_weights(params: FinetuneParams, names: Sequence[str], counts: Sequence[int]) -> torch.Tensor | None:
    """Return the weight of each label [k] float32, or None if all count alike.

    `balanced` is n / (k · rows of the label) for n rows of k labels, as in scikit-learn: every label counts the same,
    and the mean over the rows is 1. `names` and `counts` are in the order of the outputs. An AttuneError if
    `class_weights` names an unknown label or leaves one out.
    """
    if params.class_weights == "none":
        return None
    if params.class_weights == "balanced":
        learned = sum(count > 0 for count in counts)
        # The weight of a label without training rows is never looked up.
        return torch.tensor([sum(counts) / (learned * max(count, 1)) for count in counts])
    named = {str(label): weight for label, weight in params.class_weights.items()}
    if wrong := sorted(set(named) ^ set(names)):
        fault = "names {!r}, which the data does not have" if wrong[0] in named else "leaves out {!r}"
        known = listed([repr(display(label, 60)) for label in sorted(names)], MOST_NAMED)
        fix = f"give each of the {len(names)} labels a weight: {known}"
        raise AttuneError(f"finetune.class_weights {fault.format(display(wrong[0], 60))}", fix)
    return torch.tensor([named[label] for label in names])


def _gamma(params: FinetuneParams) -> float:
    return GAMMA if params.focal_gamma is None else params.focal_gamma
