"""How the learning rate rises and falls over the steps."""

from math import ceil, cos, pi

import torch

from stages.common.params import FinetuneParams


def build_schedule(
    optimizer: torch.optim.Optimizer, params: FinetuneParams, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule for so many steps, the same for every group of the optimiser.

    It rises from 0 in a straight line, is at the peak after the warm-up and would be at `lr_final_ratio` of it in the
    step after the last. So do transformers' schedules, which have no exponential fall and no floor for the linear one.
    """
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(params, step, steps))


def rate_factor(params: FinetuneParams, step: int, steps: int) -> float:
    """Return the share of the peak learning rate in `step`, the first of which is 0, of a training of so many."""
    warmup = ceil(params.warmup_ratio * steps)
    if steps <= 1:
        return 1.0  # a warm-up would be all there is, and at rate 0 nothing would be learned
    if step < warmup:
        return step / warmup
    left = max(0, steps - step) / max(1, steps - warmup)  # from 1 to 0
    final = params.lr_final_ratio
    if params.lr_scheduler_type == "constant":
        return 1.0
    if params.lr_scheduler_type == "exponential":
        return final ** (1 - left)
    if params.lr_scheduler_type == "cosine":
        left = (1 - cos(pi * left)) / 2
    return final + (1 - final) * left
