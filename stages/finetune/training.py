"""One training from its first step, or its last checkpoint, to its best epoch.

It is Hugging Face's `Trainer` with Attune's batches, optimiser, schedule and checkpoints. A training that is cut short
at any moment goes on, and ends with the same bytes as if nothing had happened. `Trainer` restores most of that itself:
optimiser, schedule, random numbers (torch.load with `weights_only`, so nothing is unpickled), and the position in the
epoch. What it lacks is here.
"""

import math
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import torch
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from torch import distributed
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput

from stages.common.distributed import end_with_parent, world_size
from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.params.tasks import Score
from stages.finetune import checkpoints
from stages.finetune.batches import LengthBatches, TokenRows
from stages.finetune.cpu_speed import fast_on_cpu, trimmed_vocabulary
from stages.finetune.machine import explain_memory_errors
from stages.finetune.memory import plan
from stages.finetune.optimizers import build_optimizer, build_schedule
from stages.finetune.progress import divergence
from stages.finetune.strategies import step_loss
from stages.tasks.base import Task
from stages.tasks.inference import wants_bf16
from stages.tasks.training import Space

FULL = 2**20  # bytes: less is left free where a write has failed for lack of room
SAMPLE = 10_000  # rows whose targets are enough to compute the loss of guessing


def training_arguments(params: FinetuneParams, folder: Path, seed: int, rows: int, best: Score) -> TrainingArguments:
    """Translate params into `TrainingArguments`, with checkpoints in `folder`; the epoch that is `best` is kept.

    Learning rate, weight decay and warm-up are not among them: loss, batches, optimiser and schedule take theirs from
    params. A training on so few `rows` that it would have no curve logs more often.
    """
    per_step = params.per_device_train_batch_size * params.gradient_accumulation_steps * world_size()
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=params.num_train_epochs,
        per_device_train_batch_size=params.per_device_train_batch_size,
        per_device_eval_batch_size=params.per_device_eval_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        max_grad_norm=params.max_grad_norm,
        dataloader_num_workers=params.dataloader_num_workers,
        bf16=wants_bf16(params.bf16),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",  # AttuneTrainer removes older checkpoints
        restore_callback_states_from_checkpoint=True,  # the epochs that early stopping has waited already
        load_best_model_at_end=params.train_on == "train",
        metric_for_best_model=f"eval_{best.name}",
        greater_is_better=best.greater_is_better,
        logging_steps=min(params.logging_steps, math.ceil(rows / per_step)),
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        seed=seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,  # progress.py has a bar of its own
    )


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: dict[str, pl.DataFrame],
    task: Task,
    space: Space,
    params: FinetuneParams,
    arguments: TrainingArguments,
    callbacks: list[TrainerCallback],
) -> list[dict[str, Any]]:
    """Train `model` in place up to its best epoch, from its last checkpoint if it has one; return the trainer's log.

    Raises:
        AttuneError: if the training diverges, or memory or disk run out.
    """
    rows, validation = splits["train"], splits["validation"]
    if params.train_on == "train_and_validation":
        rows = pl.concat([rows, validation])
    losses = task.loss_function(params, space, rows["labels"].to_list())
    columns = [name for name in tokenizer.model_input_names if name in rows.columns]
    loss, of_strategy = step_loss(model, params, losses)
    if params.early_stopping_patience:
        of_strategy.append(EarlyStoppingCallback(params.early_stopping_patience))
    if task.estimates_memory:
        longest = rows.sort("length", descending=True).head(1).select(*columns, "labels").to_dicts()
        most = params.per_device_train_batch_size
        if params.max_tokens_per_batch:
            most = max(1, min(most, params.max_tokens_per_batch // int(rows["length"].max())))  # type: ignore[arg-type]
        arguments.gradient_checkpointing = plan(model, task.collator(tokenizer)(longest), most, params)
        arguments.gradient_checkpointing_kwargs = {"use_reentrant": False}
    packed = task.packs(model, params)
    if packed:
        print("  rows are packed: no batch has padding", flush=True)
    trainer = AttuneTrainer(
        task=task,
        guessing=task.guessing(rows["labels"].head(SAMPLE).to_list(), model.config),
        losses=losses,
        collator=task.collator(tokenizer, packed),
        params=params,
        model=model,
        args=arguments,
        train_dataset=TokenRows(rows, columns),
        eval_dataset=TokenRows(validation.sort("length", descending=True, maintain_order=True), columns),
        processing_class=tokenizer,
        data_collator=task.collator(tokenizer),
        compute_loss_func=loss,
        preprocess_logits_for_metrics=task.scored,
        compute_metrics=lambda given: task.validation_scores(given.predictions, given.label_ids, space),
        callbacks=[*of_strategy, checkpoints.SaveAndLog(params.save_steps), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    occurring = pl.concat([rows, validation])["input_ids"].explode().unique().to_list()
    tokens = torch.tensor([*occurring, tokenizer.pad_token_id])  # the model itself may have no padding token
    fast = nullcontext() if torch.cuda.is_available() else fast_on_cpu(model)
    with trimmed_vocabulary(model, tokens), fast, explain_memory_errors(params, model):
        trainer.resume()
    return trainer.state.log_history


class AttuneTrainer(Trainer):
    """A trainer that takes from params what `TrainingArguments` has no name for."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self, *, task: Task, params: FinetuneParams, losses: Any, guessing: Any, collator: Any, **given: Any
    ) -> None:
        """Take the stage's params beside all that `Trainer` takes; `train_dataset` is a `TokenRows`.

        `losses` are those of the task; `guessing` are logits and targets of a model that knows nothing; `collator` is
        of training alone.
        """
        super().__init__(**given)
        self._params, self._folder = params, Path(self.args.output_dir)
        self._task, self._losses, self._collator = task, losses, collator
        logits, targets = guessing
        equal = self.compute_loss_func(SimpleNamespace(logits=logits), targets)
        self._guessing = float(equal.detach())  # with all that it weighs

    def resume(self) -> None:
        """Train from the last complete checkpoint, or from the beginning."""
        last = None
        if self.is_world_process_zero():
            for checkpoint in self._folder.glob("checkpoint-*"):
                if not (checkpoint / checkpoints.COMPLETE).exists():
                    shutil.rmtree(checkpoint, ignore_errors=True)
            if last := checkpoints.last_checkpoint(self._folder):
                print(f"  going on from step {checkpoints.step_of(last)}", flush=True)
        (last,) = broadcast_object_list([last])
        if self.args.world_size > 1:  # or all would drop the same; what a checkpoint says of it comes later
            torch.manual_seed(self.args.seed + self.args.process_index)
        try:
            self.train(resume_from_checkpoint=str(last) if last else None)
        except KeyboardInterrupt:
            last = checkpoints.last_checkpoint(self._folder)
            goes_on = f"the same command goes on from step {checkpoints.step_of(last)}" if last else ""
            raise KeyboardInterrupt(goes_on) from None
        if self.args.world_size > 1:  # what one of them still does may fail
            distributed.barrier()
            distributed.destroy_process_group()

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the training batches of this process."""
        rows: TokenRows = self.train_dataset
        processes = self.args.process_index, self.args.world_size
        batches = LengthBatches(rows.lengths, self._params, self.args.seed, *processes)
        loader = DataLoader(
            rows,
            batch_sampler=batches,
            collate_fn=self._collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_num_workers > 0,
            worker_init_fn=end_with_parent,  # or it would keep the lock of the stage for seconds
            generator=torch.Generator(),  # its own: workers must not use up the numbers that dropout would get
        )
        loader.set_epoch = batches.set_epoch  # type: ignore[attr-defined]  # which `Trainer` calls
        return loader

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Return the items of a whole step, over its forward passes and processes; `Trainer` would count numbers."""
        items = sum(self._task.items(batch["labels"]) for batch in batch_samples if "labels" in batch)
        return self.accelerator.gather(torch.tensor(items, device=device)).sum()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting the model's weights at every step takes time, and nobody reads the result."""
        return 0

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimiser that params ask for."""
        self.optimizer = build_optimizer(model or self.model, self._params)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule of the learning rate that params ask for."""
        self.lr_scheduler = build_schedule(optimizer or self.optimizer, self._params, num_training_steps)
        return self.lr_scheduler

    def _run_epoch(self, **given: Any) -> None:
        if self.state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            self.control.should_training_stop = True  # early stopping had ended it; `Trainer` would train one more
        else:
            super()._run_epoch(**given)

    def evaluation_loop(self, *given: Any, **named: Any) -> EvalLoopOutput:
        """Score; `Trainer` would take the mean over batches, and with several processes count some rows twice."""
        output = super().evaluation_loop(*given, **named)
        kept, targets = output.predictions, output.label_ids
        if (self.args.world_size > 1 or self._task.sums_rows) and output.metrics:
            output.metrics["eval_loss"] = self._task.mean_loss(self._losses, kept, targets)
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record a point of a curve, unless it shows that the training has diverged."""
        for name, title in (("loss", "loss"), ("eval_loss", "validation loss")):
            if not math.isfinite(logs.get(name, 0.0)):
                raise self._diverged(f"the {title} is {logs[name]}")
        super().log(logs, start_time)
        if reason := divergence(self.state.log_history, self.state.max_steps, self._guessing):
            raise self._diverged(reason)

    def _diverged(self, reason: str) -> AttuneError:
        params, last = self._params, checkpoints.last_checkpoint(self._folder)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return AttuneError(
            f"the training has diverged by step {self.state.global_step}: {reason}",
            f"lower finetune.learning_rate (now {params.learning_rate:g}), or see to it that finetune.max_grad_norm is "
            f"1 (now {params.max_grad_norm:g}), warmup_ratio at least 0.06 (now {params.warmup_ratio:g}), and bf16 "
            f"false\n  → {kept}; with other settings the training starts from the beginning",
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint of finite weights; only when it is complete, older ones go."""
        if not all(bool(value.isfinite().all()) for value in self.model.parameters() if value.requires_grad):
            raise self._diverged("the weights are not finite")
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                best = self.state.best_global_step if self.args.load_best_model_at_end else None
                checkpoints.complete(self._folder / f"checkpoint-{self.state.global_step}", self.args.world_size, best)
        except (OSError, RuntimeError) as error:  # torch says in words of its own that the disk is full
            if shutil.disk_usage(self._folder).free >= FULL:
                raise
            raise AttuneError(
                f"the disk of {self._folder} is full: there is no room for the checkpoint of step "
                f"{self.state.global_step} beside the one before",
                "make room; then the same command goes on from the last complete checkpoint",
            ) from error

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if output_dir and self.args.should_save:  # peft's own checkpoints lack half of a prefix and of AdaLoRA
            checkpoints.save_weights(self.model, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_weights(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        checkpoints.load_weights(self.model, Path(str(self.state.best_model_checkpoint)))
