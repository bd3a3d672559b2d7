"""Trainings that go wrong end with a message that names the setting to change, and keep their last good checkpoint."""

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

FAR = 2.0  # times the loss of knowing nothing
LONG_STEPS, LONG_SHARE = 100, 0.25  # over which it has to last: so many steps, and this share of the training
FEWEST_POINTS = 3  # of the curve: a single one may be the mean of a spike
SAMPLE = 10_000  # rows whose labels tell what knowing nothing costs
NO_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "Cannot allocate memory", "out of memory")
WORKER_DIED = re.compile(r"DataLoader worker .*(killed|exited)|bus error|shared memory", re.I)


class Guarded(Trainer):
    """A trainer that stops at a loss, a gradient or a weight that is no number, and at a training that diverges."""

    _params: FinetuneParams
    _unsound: torch.Tensor | None = None  # on a GPU: whether something was no number, looked at now and then
    _nothing = math.inf  # the loss of a model that knows nothing

    def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
        """Train on one batch and look at its loss."""
        loss: torch.Tensor = super().training_step(*given, **named)
        if math.isinf(self._nothing):
            self._nothing = self._loss_of_nothing()
        self._see(loss, "loss")
        return loss

    def _get_grad_norm(self, *given: Any, **named: Any) -> Any:
        """Look at the norm of the gradient, before the optimiser spoils the weights with it."""
        norm = super()._get_grad_norm(*given, **named)
        self._see(torch.as_tensor(norm), "gradient")
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record a point of a curve, and look where the curve leads."""
        self._look()
        for name, told in (("loss", "loss"), ("eval_loss", "validation loss")):
            if not math.isfinite(logs.get(name, 0.0)):
                raise self._diverged(f"the {told} is {logs[name]}")
        super().log(logs, start_time)
        if reason := diverging(self.state.log_history, self.state.max_steps, self._nothing):
            raise self._diverged(reason)

    def _save_checkpoint(self, *given: Any, **named: Any) -> None:
        self._look()
        for name, value in self.model.named_parameters():
            if value.requires_grad and not bool(torch.isfinite(value).all()):
                raise self._diverged(f"the weights {name} are no numbers any more")
        super()._save_checkpoint(*given, **named)

    def _loss_of_nothing(self) -> float:
        """Return the training loss, whatever it weighs and adds, of equal logits for all labels."""
        labels = torch.tensor([self.train_dataset[at]["labels"] for at in range(min(SAMPLE, len(self.train_dataset)))])
        logits = torch.zeros(len(labels), self.model.config.num_labels)
        return float(self.compute_loss_func(SimpleNamespace(logits=logits), labels).detach())

    def _see(self, value: torch.Tensor, what: str) -> None:
        """Look at a number at once where that is free; on a GPU it would have to wait for the step's end."""
        unsound = ~torch.isfinite(value.detach())
        if value.device.type != "cpu":
            self._unsound = unsound if self._unsound is None else self._unsound | unsound
        elif bool(unsound):
            raise self._diverged(f"the {what} is {float(value)}")

    def _look(self) -> None:
        if self._unsound is not None and bool(self._unsound):
            raise self._diverged("a loss or a gradient is no number any more")

    def _diverged(self, what: str) -> AttuneError:
        return AttuneError(
            f"the training has diverged by step {self.state.global_step + 1}: {what}",
            f"{remedies(self._params)}{what_is_kept(Path(self.args.output_dir))}",
        )


def diverging(history: list[dict[str, Any]], steps: int, nothing: float) -> str | None:
    """Return what is wrong if a training has left for good; it is asked at each point of its curve.

    A model that knows nothing has a loss of ln k for k labels, and any other can return to that by giving all labels
    the same logit. One whose loss is twice as high at most points over 100 steps and a quarter of the training is sure
    of what is wrong. Nothing healthy does that: noise raises the loss of single batches, a learning rate that is too
    high for a while raises it for a while (however much: what counts is the median), and wrong labels or an overfitted
    model raise it on the validation rows, which is why those are not asked here.

    A model that falls back to knowing nothing and stays there is not found: some data has nothing to learn. The
    baselines in `reports/metrics.json` tell.

    Args:
        history: the trainer's log.
        steps: of the whole training.
        nothing: the loss of knowing nothing.
    """
    points = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    window = min(max(LONG_STEPS, ceil(LONG_SHARE * steps)), steps)  # a short training is judged at its end
    if len(points) < FEWEST_POINTS or points[-1][0] < window:
        return None
    since = min(points[-1][0] - window, points[-FEWEST_POINTS][0] - 1)
    usual = median(loss for step, loss in points if step > since)
    if usual <= FAR * nothing:
        return None
    return f"over {window} steps, its loss was {usual:.3g} in the middle, and that of guessing is {nothing:.3g}"


def remedies(params: FinetuneParams) -> str:
    """Return what to change against a training that diverges, with the values of now; the likeliest first."""
    tips = [f"lower finetune.learning_rate (now {params.learning_rate:g})"]
    if params.max_grad_norm == 0 or params.max_grad_norm > 1:
        tips.append(f"set finetune.max_grad_norm: 1.0 (now {params.max_grad_norm:g})")
    if params.warmup_ratio < 0.06:
        tips.append(f"raise finetune.warmup_ratio to 0.06 (now {params.warmup_ratio:g})")
    if params.bf16 is not False:
        tips.append("set finetune.bf16: false")
    return ", or ".join(tips)


def what_is_kept(folder: Path) -> str:
    """Return a sentence about the last good checkpoint of a training that went wrong."""
    last = last_checkpoint(folder)
    kept = (
        f"the last good checkpoint, of step {step_of(Path(last))}, is {last}" if last else "there is no checkpoint yet"
    )
    again = "would go on from it into the same" if last else "would come to the same"
    return f"\n  → {kept}; `dvc repro` with the same settings {again}, with others the training begins anew"


@contextmanager
def memory_named(params: FinetuneParams, model: torch.nn.Module) -> Iterator[None]:
    """Say which setting to change when the block runs out of memory.

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
        out = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(told in str(error) for told in NO_MEMORY)
        if not out:
            raise
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        doing = "training" if model.training else "validation"
        raise AttuneError(f"{where} ran out of memory in {doing}", _less_memory(params, model.training)) from None


def _less_memory(params: FinetuneParams, training: bool) -> str:
    if not training:
        return f"halve finetune.per_device_eval_batch_size (now {params.per_device_eval_batch_size})"
    rows, steps = params.per_device_train_batch_size, params.gradient_accumulation_steps
    if rows > 1:
        tip = f"set finetune.per_device_train_batch_size: {rows // 2} (now {rows}) and double "
        tip += f"finetune.gradient_accumulation_steps (now {steps}): each step learns from the same rows"
    else:
        tip = "set finetune.strategy: lora"
    budget = params.max_tokens_per_batch
    lower = f"lower finetune.max_tokens_per_batch (now {budget})" if budget else "set finetune.max_tokens_per_batch"
    return f"{tip}; or {lower}, lower tokenize.max_length, or set finetune.freeze_embeddings: true"
