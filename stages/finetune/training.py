"""One training from its first step, or its last checkpoint, to its best epoch."""

from contextlib import nullcontext
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

from stages.common.params import FinetuneParams
from stages.finetune.batches import TokenRows
from stages.finetune.dropout import fast_on_cpu
from stages.finetune.guards import memory_named
from stages.finetune.objective import build_objective
from stages.finetune.progress import LogEachEpoch
from stages.finetune.resumable import SaveEvery
from stages.finetune.strategies import with_strategy
from stages.finetune.trainer import Finetuner
from stages.finetune.vocabulary import cut_to


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
    """Train `model` in place up to its best epoch; return the trainer's log.

    A checkpoint in `arguments.output_dir` from a run that was cut short is continued.

    Raises:
        AttuneError: if the training diverges, or memory or disk run out.
    """
    rows, validation = splits["train"], splits["validation"]
    if params.train_on == "train_and_validation":
        rows = pl.concat([rows, validation])
    counts = [int((rows["labels"] == number).sum()) for number in range(len(labels))]
    columns = [name for name in tokenizer.model_input_names if name in rows.columns]
    stopping = [EarlyStoppingCallback(params.early_stopping_patience)] if params.early_stopping_patience else []
    saving = [SaveEvery(params.save_steps)] if params.save_steps else []
    objective, of_strategy = with_strategy(model, params, build_objective(params, labels, counts))
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
        callbacks=[*stopping, *of_strategy, *saving, LogEachEpoch(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    occurring = pl.concat([rows, validation])["input_ids"].explode().unique().to_list()
    tokens = torch.tensor([*occurring, tokenizer.pad_token_id])  # padding may be no row of its own to the model
    fast = nullcontext() if torch.cuda.is_available() else fast_on_cpu(model)
    cut = nullcontext() if trainer.is_fsdp_enabled else cut_to(model, tokens)  # FSDP has divided the table
    with cut, fast, memory_named(params, model):
        trainer.go_on()
    return trainer.state.log_history
