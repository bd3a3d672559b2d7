"""Checkpoints on disk: each is complete or does not count.

A checkpoint counts once its marker is there, which comes when everything else has reached the disk, and older ones are
removed only after that. So a process may be killed, and a machine lose its power, at any moment.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from stages.common.errors import AttuneError

COMPLETE = "complete"  # an empty file
WEIGHTS = "weights.pt"
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of each weight's importance, in peft's rank allocator


class SaveAndLog(TrainerCallback):
    """Ask for a checkpoint every so many steps, each with a point of the curve: it holds no losses since the last."""

    def __init__(self, save_steps: int | None) -> None:
        self._save_steps = save_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Ask for both, but not at the end of an epoch: that checkpoint comes after the validation."""
        if self._save_steps and state.global_step % self._save_steps == 0 and state.epoch % 1:
            control.should_save = control.should_log = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Ask for the point; the trainer writes the checkpoint."""
        control.should_log = True


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a training, if there is one."""
    return max((marker.parent for marker in folder.glob(f"checkpoint-*/{COMPLETE}")), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return after how many training steps a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def complete(checkpoint: Path, processes: int, best: int | None) -> None:
    """Call a checkpoint complete, once the disk has all of it; then remove the others, but for that of step `best`.

    Raises:
        AttuneError: if one of the processes that train together has left nothing in it.
    """
    if len(list(checkpoint.glob("rng_state*"))) < processes:
        what = f"{checkpoint} lacks what other processes have written: their machines do not share this folder"
        fix = "put the checkout, or its folder .attune/checkpoints, on a file system that all machines share"
        raise AttuneError(what, fix)
    for path in checkpoint.rglob("*"):
        _fsync(path)
    (checkpoint / COMPLETE).touch()
    _fsync(checkpoint)
    _fsync(checkpoint.parent)
    for older in checkpoint.parent.glob("checkpoint-*"):
        if older != checkpoint and step_of(older) != best:
            discard(older)


def discard(checkpoint: Path) -> None:
    """Remove a checkpoint, its marker first: one that is removed by half does not count."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def discard_others(folder: Path) -> None:
    """Remove the checkpoints of trainings with other inputs, except the latest: its params may be set back."""
    others = [other for other in folder.parent.iterdir() if other.is_dir() and other.name != folder.name]
    for other in sorted(others, key=lambda other: other.stat().st_mtime)[:-1]:
        for checkpoint in other.glob("checkpoint-*"):
            discard(checkpoint)
        shutil.rmtree(other, ignore_errors=True)


def save_weights(model: Any, checkpoint: Path) -> None:
    """Write the weights that train; the base model has the frozen ones."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    state = {"weights": {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}}
    if ranks := getattr(model.base_model, "rankallocator", None):  # of AdaLoRA: what it remembers from step to step
        averages = {name: getattr(ranks, name) for name in AVERAGES}
        state |= {"ranks": averages, "pattern": ranks.peft_config.rank_pattern}
    torch.save(state, checkpoint / WEIGHTS)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Give the model the weights that `save_weights` wrote."""
    state = torch.load(checkpoint / WEIGHTS, map_location=model.device, weights_only=True)
    with torch.no_grad():
        for name, value in state["weights"].items():
            model.get_parameter(name).copy_(value)
    if "ranks" in state:
        vars(model.base_model.rankallocator).update(state["ranks"])
        model.base_model.rankallocator.peft_config.rank_pattern = state["pattern"]


def _fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
