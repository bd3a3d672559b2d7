"""Hugging Face's `Trainer` with Attune's batches, loss, optimiser and schedule."""

from typing import Any

import torch
from torch.utils.data import DataLoader

from stages.common.params import FinetuneParams
from stages.common.ranks import end_with_parent
from stages.finetune.batches import EpochLoader, LengthBatches, TokenRows
from stages.finetune.guards import Guarded
from stages.finetune.optimizers import build_optimizer
from stages.finetune.resumable import Resumable
from stages.finetune.schedules import build_schedule


class Finetuner(Guarded, Resumable):
    """A trainer that takes from params what `TrainingArguments` has no name for."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *, params: FinetuneParams, **given: Any) -> None:
        """Take the stage's params beside all that `Trainer` takes; `train_dataset` is a `TokenRows`."""
        super().__init__(**given)
        self._params = params

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the training batches of this process."""
        rows: TokenRows = self.train_dataset
        batches = LengthBatches(
            rows.lengths,
            self._params.per_device_train_batch_size,
            self.args.seed,
            by_length=self._params.group_by_length,
            max_tokens=self._params.max_tokens_per_batch,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )
        return EpochLoader(
            rows,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_num_workers > 0,
            worker_init_fn=_end_with_parent,
            generator=torch.Generator(),  # its own: workers must not use up the numbers that dropout would get
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting the model's weights at every step takes time, and nobody reads the result."""
        return 0

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimiser that params ask for."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(model or self.model, self._params)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule of the learning rate that params ask for."""
        if self.lr_scheduler is None:
            self.lr_scheduler = build_schedule(optimizer or self.optimizer, self._params, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler


def _end_with_parent(worker: int) -> None:
    """A worker that outlives a killed training would keep the lock of the stage for seconds."""
    end_with_parent()
