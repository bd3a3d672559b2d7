"""What a person, MLflow and a search over settings see of a training: its curves, and how far it is.

The curves hold numbers that depend on the inputs alone: no seconds, no rates.
"""

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback

from stages.tracking.live import LiveRun

LINES_PER_EPOCH = 4
TRAINING = ("step", "epoch", "loss", "learning_rate")
VALIDATION = ("step", "epoch", "validation_loss", "validation_accuracy", "validation_macro_f1")


def curve_point(entry: dict[str, Any]) -> dict[str, float] | None:
    """Return an entry of the trainer's log as a point of one of the curves, if it is one."""
    where = {"step": entry.get("step"), "epoch": round(entry["epoch"], 4)}
    if "loss" in entry and "learning_rate" in entry:
        return {**where, **{name: entry[name] for name in TRAINING[2:]}}
    if "eval_loss" in entry:
        return {**where, **{name: entry[name.replace("validation", "eval")] for name in VALIDATION[2:]}}
    return None


def write_curves(history: list[dict[str, Any]], training: Path, validation: Path) -> None:
    """Write the two curves of a trainer's log as CSV, a row a point."""
    points = [point for entry in history if (point := curve_point(entry))]
    for path, columns in ((training, TRAINING), (validation, VALIDATION)):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(point for point in points if columns[-1] in point)


class Curves(TrainerCallback):
    """Write each point of the curves as a line of JSON as it comes, and send it to MLflow."""

    def __init__(self, path: Path, live: LiveRun | None = None) -> None:
        self._path, self._live = path, live

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Start the file with the points up to the checkpoint; those after it will come again."""
        self._write(state.log_history, "w")

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Forward the newest entry of the log, if it is a point."""
        self._write(state.log_history[-1:], "a")
        if self._live and (point := curve_point(state.log_history[-1])):
            self._live.log(point, state.global_step)

    def _write(self, entries: list[dict[str, Any]], mode: str) -> None:
        lines = [json.dumps(point) + "\n" for entry in entries if (point := curve_point(entry))]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode, encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:  # the training is worth more than its log
            print(f"  warning: {self._path} is not written: {error}", file=sys.stderr, flush=True)


class Rhythm(TrainerCallback):
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


class Progress(TrainerCallback):
    """A bar on a terminal, a line now and then elsewhere, and a line per epoch everywhere."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Start the clock, and the bar where the checkpoint is."""
        self._began, self._first = time.perf_counter(), state.global_step
        steps = {"total": state.max_steps, "initial": state.global_step, "unit": "step"}
        self._bar = tqdm(**steps, dynamic_ncols=True, disable=not self._terminal)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Say how far the training is and how fast: at each step on a terminal, else a few times an epoch."""
        every = max(1, state.max_steps // (LINES_PER_EPOCH * int(args.num_train_epochs)))
        if not self._terminal and state.global_step % every:
            return
        seconds, steps = time.perf_counter() - self._began, state.global_step - self._first
        lengths = given["train_dataloader"].dataset.lengths  # [n] tokens, all of which an epoch has
        passes = steps * args.num_train_epochs / state.max_steps / seconds
        speed = f"{passes * len(lengths):,.0f} rows/s, {passes * lengths.sum():,.0f} tokens/s"
        if self._terminal:
            self._bar.set_postfix_str(speed, refresh=False)
            self._bar.update(state.global_step - self._bar.n)
            return
        left = tqdm.format_interval(seconds / steps * (state.max_steps - state.global_step))
        print(f"  step {state.global_step}/{state.max_steps}, {speed}, {left} left", flush=True)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Say how the epoch went."""
        scores = given["metrics"]
        self._bar.clear()
        line = f"  epoch {state.epoch:g}: validation loss {scores['eval_loss']:.4f}"
        print(f"{line}, accuracy {scores['eval_accuracy']:.4f}, macro-F1 {scores['eval_macro_f1']:.4f}", flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Leave the bar."""
        self._bar.close()
