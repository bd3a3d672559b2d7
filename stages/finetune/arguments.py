"""From params to Hugging Face's `TrainingArguments`."""

from math import ceil, nextafter
from pathlib import Path

import torch
from transformers import TrainingArguments

from stages.common.params import FinetuneParams
from stages.common.params.finetune import GREATER_IS_BETTER
from stages.common.ranks import world_size
from stages.tasks.precision import wants_bf16


def training_arguments(params: FinetuneParams, folder: Path, seed: int, rows: int) -> TrainingArguments:
    """Translate params into `TrainingArguments`; names are the same wherever one exists.

    What `TrainingArguments` has no name for (loss, optimiser, schedule, batches) is the business of `Finetuner`.

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
        learning_rate=params.learning_rate,
        per_device_train_batch_size=params.per_device_train_batch_size,
        per_device_eval_batch_size=params.per_device_eval_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        # transformers 5 takes a share of the steps here, but 1.0 for a single step
        warmup_steps=min(params.warmup_ratio, nextafter(1.0, 0.0)),
        weight_decay=params.weight_decay,
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
