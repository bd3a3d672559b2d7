"""Trainings that fail end with a message that names the setting to change, and keep their last good checkpoint."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from transformers import Trainer

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.checkpoints import last_checkpoint, step_of

FAR = 2.0  # times the loss of guessing
LONG_STEPS, LONG_SHARE = 100, 0.25  # how long it has to last: so many steps, and this share of the training
FEWEST_POINTS = 3  # of the curve: a single one may be the mean of a spike
SAMPLE = 10_000  # rows whose labels are enough to compute the loss of guessing
NO_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "Cannot allocate memory", "out of memory")
WORKER_DIED = re.compile(r"DataLoader worker .*(killed|exited)|bus error|shared memory", re.I)


class Guarded(Trainer):
    """A trainer that stops when its loss or its weights are not finite, and when the training diverges."""

    _params: FinetuneParams
    _guessing = math.inf  # the loss of equal logits for all labels

    def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
        """Train on one batch, and check its loss where that costs nothing: a GPU would have to finish the step first.

        Raises:
            AttuneError: if the loss is not finite.
        """
        loss: torch.Tensor = super().training_step(*given, **named)
        if math.isinf(self._guessing):
            self._guessing = self._loss_of_guessing()
        if loss.device.type == "cpu" and not math.isfinite(float(loss)):
            raise self._diverged(f"the loss is {float(loss)}")
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record a point of a curve, unless it shows that the training has diverged.

        Raises:
            AttuneError: if it has.
        """
        for name, title in (("loss", "loss"), ("eval_loss", "validation loss")):
            if not math.isfinite(logs.get(name, 0.0)):
                raise self._diverged(f"the {title} is {logs[name]}")
        super().log(logs, start_time)
        if reason := diverging(self.state.log_history, self.state.max_steps, self._guessing):
            raise self._diverged(reason)

    def _save_checkpoint(self, *given: Any, **named: Any) -> None:
        for name, value in self.model.named_parameters():
            if value.requires_grad and not bool(torch.isfinite(value).all()):
                raise self._diverged(f"the weights {name} are not finite")
        super()._save_checkpoint(*given, **named)

    def _loss_of_guessing(self) -> float:
        """Return the training loss, with its class weights and whatever the strategy adds, of equal logits."""
        rows = range(min(SAMPLE, len(self.train_dataset)))
        labels = torch.tensor([self.train_dataset[row]["labels"] for row in rows])
        logits = torch.zeros(len(labels), self.model.config.num_labels)
        return float(self.compute_loss_func(SimpleNamespace(logits=logits), labels).detach())

    def _diverged(self, what: str) -> AttuneError:
        last = last_checkpoint(Path(self.args.output_dir))
        kept = f"the last good checkpoint, of step {step_of(Path(last))}, is {last}" if last else "no checkpoint yet"
        return AttuneError(
            f"the training has diverged by step {self.state.global_step + 1}: {what}",
            f"{remedies(self._params)}\n  → {kept}; with other settings the training starts from the beginning",
        )


def diverging(history: list[dict[str, Any]], steps: int, guessing: float) -> str | None:
    """Return what is wrong if a training has diverged for good; called at each point of its curve.

    The loss of guessing is ln k for k labels. A training whose median loss is twice that over 100 steps and a quarter
    of the training has diverged: noise raises the loss of single batches only, and a learning rate that is too high
    for a while does not move the median. The validation loss is not used: wrong labels and overfitting raise it too.

    Args:
        history: the trainer's log.
        steps: of the whole training.
        guessing: the loss of guessing.
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
    tips = [f"lower finetune.learning_rate (now {params.learning_rate:g})"]
    if params.max_grad_norm == 0 or params.max_grad_norm > 1:
        tips.append(f"set finetune.max_grad_norm: 1.0 (now {params.max_grad_norm:g})")
    if params.warmup_ratio < 0.06:
        tips.append(f"raise finetune.warmup_ratio to 0.06 (now {params.warmup_ratio:g})")
    if params.bf16 is not False:
        tips.append("set finetune.bf16: false")
    return ", or ".join(tips)


@contextmanager
def memory_named(params: FinetuneParams, model: torch.nn.Module) -> Iterator[None]:
    """Name the setting to change when the block runs out of memory.

    Raises:
        AttuneError: instead of torch's and Python's own errors.
    """
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
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not (on_gpu or isinstance(error, MemoryError) or any(part in str(error) for part in NO_MEMORY)):
            raise
        doing = "training" if model.training else "validation"
        where = "the GPU" if on_gpu else "this machine"
        raise AttuneError(f"{where} ran out of memory in {doing}", _less_memory(params, model.training)) from None


def _less_memory(params: FinetuneParams, training: bool) -> str:
    if not training:
        return f"halve finetune.per_device_eval_batch_size (now {params.per_device_eval_batch_size})"
    rows, steps = params.per_device_train_batch_size, params.gradient_accumulation_steps
    tip = "set finetune.strategy: lora"
    if rows > 1:
        tip = f"set finetune.per_device_train_batch_size: {rows // 2} (now {rows}) and double "
        tip += f"finetune.gradient_accumulation_steps (now {steps}): each step learns from the same rows"
    budget = f"max_tokens_per_batch (now {params.max_tokens_per_batch or 'null'})"
    return f"{tip}; or lower finetune.{budget} or tokenize.max_length, or set finetune.freeze_embeddings: true"
