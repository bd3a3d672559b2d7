"""One training from its first step, or its last checkpoint, to its best epoch."""

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

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.batches import TokenRows
from stages.finetune.checkpoints import last_checkpoint
from stages.finetune.guards import StopOnNan
from stages.finetune.objective import build_objective
from stages.finetune.progress import LogEachEpoch
from stages.finetune.trainer import Finetuner


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
        AttuneError: if the loss is no number any more, or memory runs out.
    """
    rows, validation = splits["train"], splits["validation"]
    if params.train_on == "train_and_validation":
        rows = pl.concat([rows, validation])
    counts = [int((rows["labels"] == number).sum()) for number in range(len(labels))]
    columns = [name for name in tokenizer.model_input_names if name in rows.columns]
    stopping = [EarlyStoppingCallback(params.early_stopping_patience)] if params.early_stopping_patience else []
    trainer = Finetuner(
        params=params,
        model=model,
        args=arguments,
        train_dataset=TokenRows(rows, columns),
        eval_dataset=TokenRows(validation.sort("length", descending=True, maintain_order=True), columns),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=build_objective(params, labels, counts),
        compute_metrics=metrics,
        callbacks=[*stopping, StopOnNan(), LogEachEpoch(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(Path(arguments.output_dir)))
    except torch.OutOfMemoryError:
        raise AttuneError(
            "the GPU ran out of memory", "halve finetune.per_device_train_batch_size or tokenize.max_length"
        ) from None
    return trainer.state.log_history
