"""The loss that a training lowers."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from stages.common.params import FinetuneParams

Objective = Callable[..., torch.Tensor]


def build_objective(params: FinetuneParams, labels: dict[str, int], counts: list[int]) -> Objective:
    """Return the loss function of the training.

    Args:
        params: the stage's section.
        labels: number of each label.
        counts: training rows of each label, by number.
    """

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of logits [b x k] against labels [b], over all rows of the training step."""
        rows = labels.numel() if num_items_in_batch is None else num_items_in_batch
        return functional.cross_entropy(outputs.logits.float(), labels, reduction="sum") / rows

    return loss
