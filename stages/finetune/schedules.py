"""How the learning rate rises and falls over the steps."""

from math import ceil

import torch

from stages.common.params import FinetuneParams


def build_schedule(
    optimizer: torch.optim.Optimizer, params: FinetuneParams, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule for so many steps."""
    warmup = ceil(params.warmup_ratio * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return (steps - step) / max(1, steps - warmup)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
