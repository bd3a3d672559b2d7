"""How much memory a training will take, measured on one row before the first step, and what to change if it is short.

What autograd keeps for the backward pass is counted in a forward pass of the longest row (without dropout, so that no
random number is used up), and multiplied by the rows of the largest batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stages.common.params import FinetuneParams

GIB = 2**30
STATES = {"adamw": 2, "sgd": 1, "adafactor": 0}  # numbers that an optimiser keeps of each weight, at the most
SPARE = 0.05  # of the free memory, for all else


@dataclass(frozen=True)
class Need:
    """Bytes of a training."""

    weights: int
    training: int  # gradients, and what the optimiser keeps
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.training + self.activations

    def __str__(self) -> str:
        parts = (("weights", self.weights), ("gradients and optimiser", self.training), ("a batch", self.activations))
        shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
        return f"about {self.total / GIB:.1f} GiB ({shown})"


def needed(model: Any, row: dict[str, Any], rows: int, params: FinetuneParams) -> Need:
    """Return what a training takes whose largest batch has so many rows like this one, a batch [1 x s]."""
    weights = list(model.parameters())
    trained = sum(value.numel() for value in weights if value.requires_grad)
    of_optimiser = STATES[params.optim] + 1  # and the gradient
    kept = {value.untyped_storage().data_ptr() for value in weights}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    device, training = weights[0].device, model.training
    inputs = {name: part.to(device) if hasattr(part, "to") else part for name, part in row.items() if name != "labels"}
    model.eval()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(**inputs).logits.float()
        loss = logits.logsumexp(dim=-1).sum()
    del loss
    model.train(training)
    activations = rows * (sum(sizes.values()) + 2 * logits.numel() * 4)  # and the gradients of the logits
    size = sum(value.numel() * value.element_size() for value in weights)
    return Need(size, 4 * trained * of_optimiser, activations)


def free() -> int:
    """Return the bytes that are free where the model is trained."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(psutil.virtual_memory().available)


def plan(model: Any, row: dict[str, Any], rows: int, params: FinetuneParams, room: Callable[[], int] = free) -> bool:
    """Say what the training takes; return whether activations are to be computed twice, to save memory.

    As set, or where they would not fit otherwise. Without room even so, say which settings to change.
    """
    setting = params.gradient_checkpointing
    there, taken = room(), sum(value.numel() * value.element_size() for value in model.parameters())
    there = int(there * (1 - SPARE)) + (0 if torch.cuda.is_available() else taken)  # the weights are in it already
    need = needed(model, row, rows, params)
    checkpointing = bool(setting) if setting != "auto" else need.total > there
    print(f"  memory: {need}, of {there / GIB:.1f} GiB", flush=True)
    if checkpointing:
        why = "as set" if setting is True else "for it would not fit otherwise"
        print(f"  gradient checkpointing is on, {why}: steps take about a third longer", flush=True)
    if need.total - need.activations * checkpointing > there or (setting is False and need.total > there):
        print(
            f"  warning: this may run out of memory: halve finetune.per_device_train_batch_size (now "
            f"{params.per_device_train_batch_size}) and double gradient_accumulation_steps, or set "
            "max_tokens_per_batch, strategy: lora, gradient_checkpointing: auto, or a smaller tokenize.max_length",
            flush=True,
        )
    return checkpointing
