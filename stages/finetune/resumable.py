"""A trainer that is cut short at any moment, goes on, and ends with the same bytes as if nothing had happened.

`Trainer` brings most of that: weights, optimiser, schedule, random numbers (torch.load with `weights_only`, so nothing
is unpickled), and the batches that an epoch has had. What it lacks is here:

- checkpoints that count only when they are complete, and the older one until then (checkpoints.py);
- a training that early stopping had ended already would train one more epoch;
- epochs of different numbers of batches, for which it would begin again at the wrong one;
- with several processes, the exact validation loss, noise of its own for each, and batches too small to share.
"""

import shutil
from collections.abc import Sequence
from itertools import accumulate
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from stages.common.errors import AttuneError
from stages.finetune.batches import IGNORED, LengthBatches
from stages.finetune.checkpoints import (
    discard,
    discard_all_but,
    is_complete,
    last_checkpoint,
    mark_complete,
    step_of,
)

FULL = 2**20  # bytes: less is left free where a write has failed for lack of room


class Resumable(Trainer):
    """A trainer whose training can be cut short."""

    _over = False  # the checkpoint is that of a training which had ended
    _batches: Sequence[int] = ()  # of each epoch

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.is_world_process_zero()

    def go_on(self) -> None:
        """Train from the last complete checkpoint, or from the beginning."""
        folder = Path(self.args.output_dir)
        last = self._as_leader(last_checkpoint(folder) if self.leads else None)
        if self.leads and last:
            print(f"  going on from step {step_of(Path(last))}", flush=True)
        if self.args.world_size > 1:  # or all would drop the same; what a checkpoint says of it comes later
            torch.manual_seed(self.args.seed + self.args.process_index)
        try:
            self.train(resume_from_checkpoint=last)
        except KeyboardInterrupt:
            last = last_checkpoint(folder)
            raise KeyboardInterrupt(f"`dvc repro` goes on from step {step_of(Path(last))}" if last else "") from None
        if self.is_fsdp_enabled:
            unshard(self.model)

    # ── epochs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """Count the steps of every epoch: where batches have a budget of tokens, they are not all alike."""
        *others, _ = super().set_initial_training_values(args, dataloader)
        batches: LengthBatches = dataloader.batch_sampler
        self._batches = [batches.of_epoch(epoch) for epoch in range(ceil(args.num_train_epochs))]
        return *others, sum(self._steps)

    @property
    def _steps(self) -> list[int]:
        return [ceil(batches / self.args.gradient_accumulation_steps) for batches in self._batches]

    def _init_training_state(self, max_steps: int, per_epoch: int, epochs: int, resumed: Any, trial: Any) -> Any:
        started = super()._init_training_state(max_steps, per_epoch, epochs, resumed, trial)
        if resumed is None:
            return started
        self._over = self.state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]
        ends = list(accumulate(self._steps))
        whole = sum(end <= self.state.global_step for end in ends)  # epochs that are done
        begun = self.state.global_step - (ends[whole - 1] if whole else 0)
        return whole, begun * self.args.gradient_accumulation_steps

    def _run_epoch(self, *, epoch: int, **given: Any) -> None:
        if self._over:  # `Trainer` forgets it when it begins
            self.control.should_training_stop = True
            return
        given |= {"steps_in_epoch": self._batches[epoch], "num_update_steps_per_epoch": self._steps[epoch]}
        super()._run_epoch(epoch=epoch, **given)

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint; only when it is complete, older ones go.

        Raises:
            AttuneError: if the disk is full; the last complete checkpoint stays.
        """
        folder = Path(self.args.output_dir)
        here = folder / f"checkpoint-{self.state.global_step}"
        try:
            if self.leads:
                discard(here)
            super()._save_checkpoint(model, trial)
            self._wait_for_all()
            if self.leads:
                self._all_here(here)
                best = Path(self.state.best_model_checkpoint).name if self.state.best_model_checkpoint else None
                best = best if self.args.load_best_model_at_end else None
                mark_complete(here, best)
                discard_all_but(folder, {here.name, best})
        except Exception as error:
            full = shutil.disk_usage(folder).free < FULL  # torch says it in words of its own
            if self.leads and not is_complete(here):
                discard(here)
            if full:
                raise AttuneError(
                    f"the disk of {folder} is full: there is no room for the checkpoint of step "
                    f"{self.state.global_step} beside the one before",
                    "make room; then `dvc repro` goes on from the last complete checkpoint",
                ) from error
            raise

    def _all_here(self, checkpoint: Path) -> None:
        """Check that what every process has written can be seen from this one.

        Raises:
            AttuneError: if it cannot.
        """
        ranks = range(self.args.world_size if self.args.world_size > 1 else 0)
        if missing := [rank for rank in ranks if not (checkpoint / f"rng_state_{rank}.pth").exists()]:
            raise AttuneError(
                f"{checkpoint} lacks what process {missing[0]} has written: its machine does not share this folder",
                "put the checkout, or its folder .attune/checkpoints, on a file system that all machines share",
            )

    # ── several processes ───────────────────────────────────────────────────────────────────────────────────────────

    def compute_loss(self, model: Any, inputs: dict[str, Any], *given: Any, **named: Any) -> Any:
        """Return the loss of a batch: 0, with gradients of 0, for the row that stands in where none was left."""
        labels = inputs.get("labels")
        if self.args.world_size == 1 or labels is None or labels.numel() > 1 or labels[0] != IGNORED:
            return super().compute_loss(model, inputs, *given, **named)
        return 0.0 * super().compute_loss(model, inputs | {"labels": labels * 0}, *given, **named)

    def evaluation_loop(self, *given: Any, **named: Any) -> EvalLoopOutput:
        """Score; with several processes `Trainer` would count some rows twice in the loss."""
        output = super().evaluation_loop(*given, **named)
        if self.args.world_size > 1 and output.metrics and self.compute_loss_func:
            with torch.no_grad():
                logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
                output.metrics["eval_loss"] = self.compute_loss_func(SimpleNamespace(logits=logits), labels).item()
        return output

    def _as_leader(self, value: Any) -> Any:
        """Return the first process's value in all of them."""
        if self.args.world_size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.args.device)
        return values[0]

    def _wait_for_all(self) -> None:
        if self.args.world_size > 1:
            distributed.barrier()


def unshard(model: torch.nn.Module) -> None:
    """Put together the weights of a model that FSDP has divided among the processes; all of them take part."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            if isinstance(value, DTensor):
                whole = value.full_tensor().detach().cpu()
                module.register_parameter(name, torch.nn.Parameter(whole, requires_grad=value.requires_grad))


class SaveEvery(TrainerCallback):
    """Write a checkpoint every so many steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Ask for a checkpoint, but not at the end of an epoch: that one comes after the validation.

        A point of the curve comes with it: going on, the trainer has forgotten the losses since the last one.
        """
        if state.global_step % self._steps == 0 and state.epoch % 1:
            control.should_save = control.should_log = True
