"""Set up and run Hugging Face's Trainer."""

import json
import sys
from math import ceil, nextafter
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.progress import LogEachEpoch
from stages.tasks.precision import wants_bf16


def training_arguments(params: FinetuneParams, folder: Path, seed: int, rows: int) -> TrainingArguments:
    """Translate params into `TrainingArguments`; names are the same wherever one exists.

    Args:
        params: the stage's section.
        folder: where checkpoints go.
        seed: of batches and dropout.
        rows: training rows; a training of few steps logs more often, so that there is a curve.
    """
    steps_per_epoch = ceil(rows / params.per_device_train_batch_size)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=params.num_train_epochs,
        learning_rate=params.learning_rate,
        per_device_train_batch_size=params.per_device_train_batch_size,
        per_device_eval_batch_size=params.per_device_eval_batch_size,
        lr_scheduler_type="linear",
        # transformers 5 takes a share of the steps here, but 1.0 for a single step
        warmup_steps=min(params.warmup_ratio, nextafter(1.0, 0.0)),
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        optim="adamw_torch",
        bf16=wants_bf16(params.bf16),
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length" if params.group_by_length else "random",
        length_column_name="length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,  # the epochs that early stopping has waited already
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{params.metric_for_best_model}",
        greater_is_better=params.metric_for_best_model != "loss",
        logging_steps=min(params.logging_steps, steps_per_epoch),
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        seed=seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=True,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )


def freeze(model: PreTrainedModel, strategy: str) -> int:
    """Leave only the weights that the strategy trains; return how many there are."""
    if strategy == "head":
        model.base_model.requires_grad_(False)
    return sum(weights.numel() for weights in model.parameters() if weights.requires_grad)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: dict[str, pl.DataFrame],
    params: FinetuneParams,
    arguments: TrainingArguments,
    metrics: Any,
    callbacks: list[TrainerCallback],
) -> list[dict[str, Any]]:
    """Train `model` in place up to its best epoch; return the trainer's log.

    A checkpoint in `arguments.output_dir` from a run that was cut short is continued.

    Raises:
        AttuneError: if the loss is no number any more, or memory runs out.
    """
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_data_set(splits["train"], tokenizer),
        eval_dataset=_data_set(splits["validation"], tokenizer),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics,
        callbacks=[EarlyStoppingCallback(params.early_stopping_patience), StopOnNan(), LogEachEpoch(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(Path(arguments.output_dir)))
    except torch.OutOfMemoryError:
        raise AttuneError(
            "the GPU ran out of memory", "halve finetune.per_device_train_batch_size or tokenize.max_length"
        ) from None
    return trainer.state.log_history


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint, if there is one; its last file is `trainer_state.json`."""
    complete = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if _is_json(state)]
    return str(max(complete, key=lambda path: int(path.name.split("-")[1]))) if complete else None


def _is_json(path: Path) -> bool:
    """Whether a file was written to its end."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _data_set(rows: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    columns = [name for name in tokenizer.model_input_names if name in rows.columns]
    return Dataset.from_polars(rows.select(*columns, "labels", "length"))


class StopOnNan(TrainerCallback):
    """End a training whose loss is no number any more, naming what to change."""

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look at each logged loss.

        Raises:
            AttuneError: if it is not finite.
        """
        logs = given["logs"]
        loss = logs.get("loss", logs.get("eval_loss", 0.0))
        if not torch.isfinite(torch.tensor(float(loss))):
            raise AttuneError(
                f"the loss is {loss} at step {state.global_step}: the training has diverged",
                "lower finetune.learning_rate, or set finetune.bf16: false",
            )
