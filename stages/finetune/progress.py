"""What is seen of a training while it runs: its curves, how far it is, and whether it has diverged.

The curves hold numbers that depend on the inputs alone: no seconds, no rates.
"""

import csv
import json
import sys
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback

from stages.common.params.tasks import Score
from stages.tracking.live import LiveRun
from stages.tracking.runs import POSITIONS, VALIDATION

LINES_PER_EPOCH = 4
COLUMNS = ("step", "epoch", "name", "value")
TRAINING = ["loss", "learning_rate"]
SPEEDS = ("_runtime", "_per_second", "_time")  # what the trainer logs of a validation besides its scores

FAR = 2.0  # times the loss of guessing
LONG_STEPS, LONG_SHARE = 100, 0.25  # how long it has to last: so many steps, and this share of the training
FEWEST_POINTS = 3  # of the curve: a single one may be the mean of a spike


def curve_point(entry: dict[str, Any]) -> dict[str, float] | None:
    """Return an entry of the trainer's log as a point: step, epoch and values by MLflow's names; None if it is none."""
    point = {"step": entry.get("step"), "epoch": round(entry["epoch"], 4)}
    if {*TRAINING} <= entry.keys():
        return point | {name: entry[name] for name in TRAINING}
    scores = {name.removeprefix("eval_") for name in entry if name.startswith("eval_") and not name.endswith(SPEEDS)}
    order = sorted(scores, key=lambda name: (name != "loss", name))  # a log from a checkpoint is sorted otherwise
    return point | {VALIDATION + name: entry[f"eval_{name}"] for name in order} if order else None


def write_curves(history: list[dict[str, Any]], training: Path, validation: Path) -> None:
    """Write the curves of a trainer's log as two long tables (step, epoch, name, value) in CSV, a row a value."""
    rows: dict[bool, list[tuple[Any, ...]]] = {False: [], True: []}  # by whether they are of the validation
    for point in filter(None, map(curve_point, history)):
        for name in (name for name in point if name not in POSITIONS):
            row = (point["step"], point["epoch"], name.removeprefix(VALIDATION), point[name])
            rows[name.startswith(VALIDATION)].append(row)
    for path, part in ((training, rows[False]), (validation, rows[True])):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *part])


def divergence(history: list[dict[str, Any]], steps: int, guessing: float) -> str | None:
    """Return what is wrong if a training of so many steps has diverged for good; called at each point of its curve.

    A training whose median loss is twice that of guessing (ln k for k labels) over 100 steps and a quarter of the
    training has diverged: noise raises the loss of single batches only, and a learning rate that is too high for a
    while does not move the median. The validation loss is not used: wrong labels and overfitting raise it too.
    """
    points = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    window = min(max(LONG_STEPS, ceil(LONG_SHARE * steps)), steps)  # a short training is judged at its end
    if len(points) < FEWEST_POINTS or points[-1][0] < window:
        return None
    since = min(points[-1][0] - window, points[-FEWEST_POINTS][0] - 1)
    middle = median(loss for step, loss in points if step > since)
    if middle <= FAR * guessing:
        return None
    return f"the median loss over {window} steps is {middle:.3g}, and that of guessing is {guessing:.3g}"


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


class Progress(TrainerCallback):
    """A bar on a terminal, a line now and then elsewhere, and a line per epoch everywhere."""

    def __init__(self, terminal: bool, scores: Sequence[Score]) -> None:
        """Take whether there is a terminal, and the scores of validation that are told."""
        self._terminal, self._scores = terminal, scores

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Start the clock, and the bar where the checkpoint is."""
        self._start, self._first = time.perf_counter(), state.global_step
        steps = {"total": state.max_steps, "initial": state.global_step, "unit": "step"}
        self._bar = tqdm(**steps, dynamic_ncols=True, disable=not self._terminal)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Say how far the training is and how fast: at each step on a terminal, else a few times an epoch."""
        every = max(1, state.max_steps // (LINES_PER_EPOCH * int(args.num_train_epochs)))
        if not self._terminal and state.global_step % every:
            return
        seconds, steps = time.perf_counter() - self._start, state.global_step - self._first
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
        values = given["metrics"]
        known = [score for score in self._scores if f"eval_{score.name}" in values]
        self._bar.clear()
        line = f"  epoch {state.epoch:g}: validation loss {values['eval_loss']:.4f}"
        print(line, *(f"{score.title} {values[f'eval_{score.name}']:.4f}" for score in known), sep=", ", flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Leave the bar."""
        self._bar.close()
