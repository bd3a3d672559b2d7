"""From params to Hugging Face's `TrainingArguments`."""

from math import ceil
from pathlib import Path

import torch
from transformers import TrainingArguments

from stages.common.params import FinetuneParams
from stages.common.params.finetune import GREATER_IS_BETTER
from stages.common.ranks import world_size
from stages.tasks.precision import wants_bf16


def training_arguments(params: FinetuneParams, folder: Path, seed: int, rows: int) -> TrainingArguments:
    """Translate params into `TrainingArguments`; names are the same wherever one exists.

    Loss, batches, optimiser and schedule (so learning rate, weight decay and warm-up) are made by `Finetuner`.

    Args:
        params: the stage's section.
        folder: where checkpoints go.
        seed: of batches and dropout.
        rows: training rows; a training of few steps logs more often, so that there is a curve.
    """
    per_step = params.per_device_train_batch_size * params.gradient_accumulation_steps * world_size()
    chooses = params.train_on == "train"
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=params.num_train_epochs,
        per_device_train_batch_size=params.per_device_train_batch_size,
        per_device_eval_batch_size=params.per_device_eval_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        max_grad_norm=params.max_grad_norm,
        bf16=wants_bf16(params.bf16),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",  # Resumable removes older checkpoints
        restore_callback_states_from_checkpoint=True,  # the epochs that early stopping has waited already
        load_best_model_at_end=chooses,
        metric_for_best_model=f"eval_{params.metric_for_best_model}",
        greater_is_better=GREATER_IS_BETTER[params.metric_for_best_model],
        logging_steps=min(params.logging_steps, ceil(rows / per_step)),
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        seed=seed,
        dataloader_num_workers=params.dataloader_num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,  # progress.py has a bar of its own
    )
