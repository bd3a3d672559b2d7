"""The optimiser, and which weights get which learning rate and decay."""

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

    Adafactor is transformers' with absolute steps, as `optim: adafactor` of `TrainingArguments` is: a learning rate
    means what it does with the others. torch's takes it as a share of each weight's size, so that 1e-4 learns nothing.

    Raises:
        AttuneError: if `layerwise_lr_decay` is asked for and the model's layers cannot be told.
    """
    groups = weight_groups(model, params)
    rate = params.learning_rate
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


def weight_groups(model: torch.nn.Module, params: FinetuneParams) -> list[dict[str, Any]]:
    """Return the optimiser's groups, those of the head first: their learning rate is the one that curves show.

    With `layerwise_lr_decay` d below 1, the head has the learning rate as it is, the top layer d times it, the next one
    d² times it, … and the embeddings below n layers dⁿ⁺¹ times it (Howard & Ruder 2018, arXiv:1801.06146; Clark et al.
    2020, arXiv:2003.10555).
    """
    shrinking = set(get_parameter_names(model, [torch.nn.LayerNorm], NOT_DECAYED))
    depth = depths(model) if params.layerwise_lr_decay < 1 else {}
    groups: dict[tuple[int, bool], list[torch.Tensor]] = {}
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            groups.setdefault((depth.get(name, 0), name not in shrinking), []).append(weights)
    return [
        {
            "params": weights,
            "lr": params.learning_rate * params.layerwise_lr_decay**below,
            "weight_decay": 0.0 if spared else params.weight_decay,
            "l1": 0.0 if spared else params.l1,
        }
        for (below, spared), weights in sorted(groups.items(), key=lambda group: group[0])
    ]


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
