"""The optimiser, which weights get which learning rate and decay, and how the rate rises and falls over the steps."""

from math import ceil, cos, pi
from typing import Any

import torch
from torch.nn import functional
from transformers.optimization import Adafactor
from transformers.trainer_pt_utils import get_parameter_names

from stages.common.params import FinetuneParams
from stages.finetune.layers import depths

# As in transformers' Trainer, and the factors of (IA)³, which stand for "unchanged" at 1 and not at 0.
NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)", r"(?:^|\.)ia3_l\."]


def build_optimizer(model: torch.nn.Module, params: FinetuneParams) -> torch.optim.Optimizer:
    """Return the optimiser over the weights that train; biases and norms shrink neither by weight decay nor by L1.

    Its groups begin with those of the head, whose learning rate is the one that curves show. With `layerwise_lr_decay`
    d below 1, the head has the learning rate as it is, the top layer d times it, the next one d² times it, … and the
    embeddings below n layers dⁿ⁺¹ times it (Howard & Ruder 2018, arXiv:1801.06146; Clark et al. 2020,
    arXiv:2003.10555).

    Adafactor is transformers' with absolute steps, as `optim: adafactor` of `TrainingArguments` is: a learning rate
    means what it does with the others. torch's takes it as a share of each weight's size, so that 1e-4 learns nothing.

    Raises:
        AttuneError: if `layerwise_lr_decay` is asked for and the model's layers cannot be told.
    """
    rate = params.learning_rate
    shrinking = set(get_parameter_names(model, [torch.nn.LayerNorm], NOT_DECAYED))
    depth = depths(model) if params.layerwise_lr_decay < 1 else {}
    weights: dict[tuple[int, bool], list[torch.Tensor]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            weights.setdefault((depth.get(name, 0), name not in shrinking), []).append(value)
    groups: list[dict[str, Any]] = [
        {
            "params": weights[below, spared],
            "lr": rate * params.layerwise_lr_decay**below,
            "weight_decay": 0.0 if spared else params.weight_decay,
            "l1": 0.0 if spared else params.l1,
        }
        for below, spared in sorted(weights)
    ]
    optimizer: torch.optim.Optimizer
    if params.optim == "sgd":
        nesterov = params.momentum > 0
        optimizer = torch.optim.SGD(groups, lr=rate, momentum=params.momentum, nesterov=nesterov, fused=True)
    elif params.optim == "adafactor":
        optimizer = Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
    else:
        betas = (params.adam_beta1, params.adam_beta2)
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas, eps=params.adam_epsilon, fused=True)
    if params.l1:
        optimizer.register_step_post_hook(_shrink)
    return optimizer


@torch.no_grad()
def _shrink(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Move each weight towards 0 by learning rate times l1, and no further: small weights become exactly 0.

    The proximal step of L1 (ISTA; Beck & Teboulle 2009, doi:10.1137/080716542), taken after the optimiser's own step as
    AdamW takes weight decay: in the gradient, Adam's scaling would undo it, and no weight would ever be 0.
    """
    for group in optimizer.param_groups:
        for weights in group["params"] if group["l1"] else ():
            if weights.grad is not None:
                weights.copy_(functional.softshrink(weights, group["lr"] * group["l1"]))


def build_schedule(
    optimizer: torch.optim.Optimizer, params: FinetuneParams, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule for so many steps, the same for every group of the optimiser.

    It rises from 0 in a straight line, is at the peak after the warm-up and would be at `lr_final_ratio` of it in the
    step after the last; transformers' schedules have no exponential fall and no floor for the linear one.
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
