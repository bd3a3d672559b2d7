"""Trainings that fail end with a message that names the setting to change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from statistics import median
from typing import Any

import torch

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams

FAR = 2.0  # times the loss of guessing
LONG_STEPS, LONG_SHARE = 100, 0.25  # how long it has to last: so many steps, and this share of the training
FEWEST_POINTS = 3  # of the curve: a single one may be the mean of a spike
NO_MEMORY = re.compile(r"DefaultCPUAllocator|can't allocate memory|Cannot allocate memory|out of memory")
WORKER_DIED = re.compile(r"DataLoader worker .*(killed|exited)|bus error|shared memory", re.I)


def diverging(history: list[dict[str, Any]], steps: int, guessing: float) -> str | None:
    """Return what is wrong if a training of so many steps has diverged for good; called at each point of its curve.

    A training whose median loss is twice that of guessing (ln k for k labels) over 100 steps and a quarter of the
    training has diverged: noise raises the loss of single batches only, and a learning rate that is too high for a
    while does not move the median. The validation loss is not used: wrong labels and overfitting raise it too.
    """
    points = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    window = min(max(LONG_STEPS, ceil(LONG_SHARE * steps)), steps)  # a short training is judged at its end
    if len(points) < FEWEST_POINTS or points[-1][0] < window:
        return None
    since = min(points[-1][0] - window, points[-FEWEST_POINTS][0] - 1)
    middle = median(loss for step, loss in points if step > since)
    if middle <= FAR * guessing:
        return None
    return f"the median loss over {window} steps is {middle:.3g}, and that of guessing is {guessing:.3g}"


def remedies(params: FinetuneParams) -> str:
    """Return what to change when a training diverges, with the present values; the likeliest first."""
    return (
        f"lower finetune.learning_rate (now {params.learning_rate:g}), or see to it that finetune.max_grad_norm is 1 "
        f"(now {params.max_grad_norm:g}), warmup_ratio at least 0.06 (now {params.warmup_ratio:g}), and bf16 false"
    )


@contextmanager
def memory_named(params: FinetuneParams, model: torch.nn.Module) -> Iterator[None]:
    """Name the setting to change when the block runs out of memory, instead of torch's and Python's own errors."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if WORKER_DIED.search(str(error)):
            raise AttuneError(
                f"a process that prepares batches died ({str(error).splitlines()[0]})",
                f"lower finetune.dataloader_num_workers (now {params.dataloader_num_workers})",
            ) from error
        if "without overflow" in str(error):  # DeBERTa (the first) masks with a number that bfloat16 does not have
            raise AttuneError("this base model cannot be trained in bfloat16", "set finetune.bf16: false") from error
        if not (isinstance(error, MemoryError) or NO_MEMORY.search(str(error))):
            raise
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        if not model.training:
            tip = f"halve finetune.per_device_eval_batch_size (now {params.per_device_eval_batch_size})"
            raise AttuneError(f"{where} ran out of memory in validation", tip) from None
        raise AttuneError(
            f"{where} ran out of memory in training",
            f"halve finetune.per_device_train_batch_size (now {params.per_device_train_batch_size}) and double "
            f"finetune.gradient_accumulation_steps (now {params.gradient_accumulation_steps}): each step learns from "
            "the same rows; or lower tokenize.max_length, or set finetune.strategy: lora",
        ) from None
