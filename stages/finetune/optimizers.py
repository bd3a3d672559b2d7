"""The optimiser: which weights get which learning rate and decay, and how the rate rises and falls over the steps."""

from itertools import takewhile
from math import ceil, cos, pi
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.optimization import Adafactor
from transformers.trainer_pt_utils import get_parameter_names

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams

# As in transformers' Trainer, and the factors of (IA)³, which stand for "unchanged" at 1 and not at 0.
NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)", r"(?:^|\.)ia3_l\."]


def build_optimizer(model: nn.Module, params: FinetuneParams) -> torch.optim.Optimizer:
    """Return the optimiser over the weights that train; biases and norms shrink neither by weight decay nor by L1.

    Its groups begin with those of the head, whose learning rate is the one that curves show. With `layerwise_lr_decay`
    d below 1, the head has the learning rate as it is, the top layer d times it, the next one d² times it, … and the
    embeddings below n layers dⁿ⁺¹ times it (Howard & Ruder 2018, arXiv:1801.06146; Clark et al. 2020,
    arXiv:2003.10555).

    Adafactor is transformers' with absolute steps, as `optim: adafactor` of `TrainingArguments` is: a learning rate
    means what it does with the others. torch's takes it as a share of each weight's size, so that 1e-4 learns nothing.

    Raises:
        AttuneError: if `layerwise_lr_decay` is below 1 and the model's layers cannot be found.
    """
    rate = params.learning_rate
    decayed = set(get_parameter_names(model, [nn.LayerNorm], NOT_DECAYED))
    depth = depths(model) if params.layerwise_lr_decay < 1 else {}
    weights: dict[tuple[int, bool], list[torch.Tensor]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            weights.setdefault((depth.get(name, 0), name not in decayed), []).append(value)
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

    Decoupled as AdamW's weight decay: in the gradient, Adam's scaling would undo it, and no weight would ever be 0.
    """
    for group in optimizer.param_groups:
        for weights in group["params"] if group["l1"] else ():
            if weights.grad is not None:
                weights.copy_(functional.softshrink(weights, group["lr"] * group["l1"]))


def build_schedule(
    optimizer: torch.optim.Optimizer, params: FinetuneParams, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate for so many steps, the same for every group of the optimiser.

    It rises from 0 in a straight line, is at the peak after the warm-up and would be at `lr_final_ratio` of it in the
    step after the last; transformers' schedules have no exponential fall and no floor for the linear one.
    """
    warmup, final = ceil(params.warmup_ratio * steps), params.lr_final_ratio

    def share_of_peak(step: int) -> float:  # the first step is 0
        if steps <= 1:
            return 1.0  # a warm-up would be all there is, and at rate 0 nothing would be learned
        if step < warmup:
            return step / warmup
        left = max(0, steps - step) / max(1, steps - warmup)  # from 1 to 0
        if params.lr_scheduler_type == "constant":
            return 1.0
        if params.lr_scheduler_type == "exponential":
            return final ** (1 - left)
        if params.lr_scheduler_type == "cosine":
            left = (1 - cos(pi * left)) / 2
        return final + (1 - final) * left

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)


def depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of each weight by name: 0 after the layers (the head), 1 in the top one, n + 1 below all n."""
    layers = encoder_layers(model)
    of_layer = {
        id(weights): len(layers) - number for number, layer in enumerate(layers) for weights in layer.parameters()
    }
    encoder = next((module.base_model for module in model.modules() if isinstance(module, PreTrainedModel)), model)
    ordered = [id(weights) for weights in encoder.parameters()]  # in the order in which the encoder defines its parts
    below = set(takewhile(lambda weights: weights not in of_layer, ordered))
    # Some models hold embeddings of relative positions behind their layers.
    below |= {id(module.weight) for module in encoder.modules() if isinstance(module, nn.Embedding)}
    return {
        name: of_layer.get(id(weights), len(layers) + 1 if id(weights) in below else 0)
        for name, weights in model.named_parameters()
    }


def encoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the model's layers, lowest first, whatever they are called and whatever wraps the model.

    They are the one list of modules with weights that lies in no other list: `bert.encoder.layer`,
    `distilbert.transformer.layer`, `model.layers` and so on.

    Raises:
        AttuneError: if there is no such list, or several (an encoder and a decoder, say).
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    lists = {name: module for name, module in lists.items() if any(True for _ in module.parameters())}
    outer = [module for name, module in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        what = f"cannot tell the layers of this model ({type(model).__name__}): it has {len(outer)} lists of modules"
        raise AttuneError(what, "use finetune.strategy full or head, with layerwise_lr_decay: 1.0")
    return outer[0]
