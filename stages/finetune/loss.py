"""The loss that a training lowers."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from stages.common.display import display, listed
from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.batches import IGNORED

Loss = Callable[..., torch.Tensor]
MOST_NAMED = 10  # labels in a message


def build_loss(params: FinetuneParams, labels: dict[str, int], counts: list[int]) -> Loss:
    """Return the loss function of the training.

    A row's loss is its cross entropy or focal loss times the weight of its label. The sum is divided by the rows of the
    whole training step, over its forward passes and processes, so that accumulated gradients are those of one large
    batch (transformers#35203); weights are no part of the divisor for the same reason.

    Without gradients, in validation, it is the plain cross entropy: runs with different losses can be compared by it.
    `labels` are the numbers of the labels, `counts` the training rows of each, by number.
    """
    weights = label_weights(params, labels, counts)
    gamma = 2.0 if params.focal_gamma is None else params.focal_gamma  # that of Lin et al. 2017

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of logits [b x k] against labels [b] int64, in float32 whatever the logits are in."""
        rows = labels.numel() if num_items_in_batch is None else num_items_in_batch
        logits = outputs.logits.float()
        if not torch.is_grad_enabled():
            return functional.cross_entropy(logits, labels, reduction="sum") / rows
        if labels.numel() == 1 and labels[0] == IGNORED:  # of a process that no row was left for
            return 0.0 * logits.sum()
        if params.loss == "focal":
            losses = focal_losses(logits, labels, gamma)
        else:
            smoothing = params.label_smoothing_factor
            losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        if weights is not None:
            losses = losses * weights.to(losses.device)[labels]
        return losses.sum() / rows

    return loss


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


def label_weights(params: FinetuneParams, labels: dict[str, int], counts: list[int]) -> torch.Tensor | None:
    """Return the weight of each label [k] float32, or None if all count alike.

    `balanced` is n / (k · rows of the label) for n rows of k labels, as in scikit-learn: every label counts the same,
    and the mean over the rows is 1.

    Raises:
        AttuneError: if `class_weights` names an unknown label or leaves one out.
    """
    if params.class_weights == "none":
        return None
    if params.class_weights == "balanced":
        learned = sum(count > 0 for count in counts)
        # The weight of a label without training rows is never looked up.
        return torch.tensor([sum(counts) / (learned * max(count, 1)) for count in counts])
    named = {str(label): weight for label, weight in params.class_weights.items()}
    if wrong := sorted(set(named) ^ set(labels)):
        fault = "names {!r}, which the data does not have" if wrong[0] in named else "leaves out {!r}"
        known = listed([repr(display(label, 60)) for label in sorted(labels)], MOST_NAMED)
        fix = f"give each of the {len(labels)} labels a weight: {known}"
        raise AttuneError(f"finetune.class_weights {fault.format(display(wrong[0], 60))}", fix)
    return torch.tensor([named[label] for label in sorted(labels, key=labels.__getitem__)])
