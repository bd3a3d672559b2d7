"""One training from its first step, or its last checkpoint, to its best epoch."""

from contextlib import nullcontext
from math import ceil
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)

from stages.common.distributed import world_size
from stages.common.params import FinetuneParams
from stages.common.params.finetune import GREATER_IS_BETTER
from stages.finetune.batches import TokenRows
from stages.finetune.dropout import fast_on_cpu
from stages.finetune.guards import memory_named
from stages.finetune.loss import build_objective
from stages.finetune.progress import Rhythm
from stages.finetune.strategies import with_strategy
from stages.finetune.trainer import Finetuner
from stages.finetune.vocabulary import cut_to
from stages.tasks.inference import wants_bf16

SAME = {"num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"}
SAME |= {"max_grad_norm", "dataloader_num_workers"}


def training_arguments(params: FinetuneParams, folder: Path, seed: int, rows: int) -> TrainingArguments:
    """Translate params into `TrainingArguments`, with checkpoints in `folder`.

    Loss, batches, optimiser and schedule (so learning rate, weight decay and warm-up) are made by `Finetuner`. A
    training on so few `rows` that it would have no curve logs more often.
    """
    per_step = params.per_device_train_batch_size * params.gradient_accumulation_steps * world_size()
    return TrainingArguments(
        output_dir=str(folder),
        **params.model_dump(include=SAME),
        bf16=wants_bf16(params.bf16),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",  # Finetuner removes older checkpoints
        restore_callback_states_from_checkpoint=True,  # the epochs that early stopping has waited already
        load_best_model_at_end=params.train_on == "train",
        metric_for_best_model=f"eval_{params.metric_for_best_model}",
        greater_is_better=GREATER_IS_BETTER[params.metric_for_best_model],
        logging_steps=min(params.logging_steps, ceil(rows / per_step)),
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
    labels: dict[str, int],
    params: FinetuneParams,
    arguments: TrainingArguments,
    metrics: Any,
    callbacks: list[TrainerCallback],
) -> list[dict[str, Any]]:
    """Train `model` in place up to its best epoch, from its last checkpoint if it has one; return the trainer's log.

    Raises:
        AttuneError: if the training diverges, or memory or disk run out.
    """
    rows, validation = splits["train"], splits["validation"]
    if params.train_on == "train_and_validation":
        rows = pl.concat([rows, validation])
    counts = [int((rows["labels"] == number).sum()) for number in range(len(labels))]
    columns = [name for name in tokenizer.model_input_names if name in rows.columns]
    objective, of_strategy = with_strategy(model, params, build_objective(params, labels, counts))
    if params.early_stopping_patience:
        of_strategy.append(EarlyStoppingCallback(params.early_stopping_patience))
    trainer = Finetuner(
        params=params,
        model=model,
        args=arguments,
        train_dataset=TokenRows(rows, columns),
        eval_dataset=TokenRows(validation.sort("length", descending=True, maintain_order=True), columns),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=objective,
        compute_metrics=metrics,
        callbacks=[*of_strategy, Rhythm(params.save_steps), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    occurring = pl.concat([rows, validation])["input_ids"].explode().unique().to_list()
    tokens = torch.tensor([*occurring, tokenizer.pad_token_id])  # padding may be no row of its own to the model
    fast = nullcontext() if torch.cuda.is_available() else fast_on_cpu(model)
    with cut_to(model, tokens), fast, memory_named(params, model):
        trainer.go_on()
    return trainer.state.log_history
