"""What a person, MLflow and a search over settings see while the model trains."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.common.tracking.live import LiveRun
from stages.finetune.curves import Point, training_point, validation_point

LINES_PER_EPOCH = 4


def watchers(live: LiveRun, lines: Path) -> list[TrainerCallback]:
    """Return what shows the training to MLflow, to readers of a file of lines and to whoever sits before it."""
    return [LiveTracking(live), CurveLines(lines), Progress(sys.stderr.isatty())]


class LiveTracking(TrainerCallback):
    """Send each point of the curves to MLflow as it comes."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Forward the newest entry of the log."""
        if point := _point(state.log_history[-1]):
            self._run.log(point, state.global_step)


class CurveLines(TrainerCallback):
    """Write each point of the curves as a line of JSON as it comes, for whoever watches the training."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._broken = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Start the file with the points up to the checkpoint; those after it will come again."""
        with self._tried():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            begun = self._path.with_name(f".{self._path.name}")
            begun.write_text("".join(map(_line, state.log_history)), encoding="utf-8")
            begun.replace(self._path)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Add the newest entry of the log, if it is a point."""
        with self._tried():
            if not self._broken:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(_line(state.log_history[-1]))

    @contextmanager
    def _tried(self) -> Iterator[None]:
        """Write if it can be done: the training is worth more than its log."""
        try:
            yield
        except OSError as error:
            self._broken = True
            print(f"  warning: {self._path} is not written: {error}", file=sys.stderr, flush=True)


class LogEachEpoch(TrainerCallback):
    """Log at the end of each epoch: going on from a checkpoint, the trainer forgets the losses since its last log."""

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Ask for a point of the curve before the checkpoint is written."""
        control.should_log = True


class Progress(TrainerCallback):
    """A bar on a terminal, a line now and then elsewhere, and a line per epoch everywhere."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._bar: Any = None
        self._began, self._first = 0.0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Start the clock, and the bar where the checkpoint is."""
        self._began, self._first = time.perf_counter(), state.global_step
        if self._terminal:
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Say how far the training is and how fast: at each step on a terminal, else a few times an epoch."""
        every = max(1, state.max_steps // (LINES_PER_EPOCH * max(1, int(args.num_train_epochs))))
        if not self._terminal and state.global_step % every:
            return
        seconds = time.perf_counter() - self._began
        steps, left = state.global_step - self._first, state.max_steps - state.global_step
        lengths = given["train_dataloader"].dataset.lengths  # [n] tokens, all of which an epoch has
        passes = steps * args.num_train_epochs / state.max_steps
        speed = f"{passes * len(lengths) / seconds:,.0f} rows/s, {passes * lengths.sum() / seconds:,.0f} tokens/s"
        if self._bar is not None:
            self._bar.set_postfix_str(speed, refresh=False)
            self._bar.update(state.global_step - self._bar.n)
            return
        line = f"  step {state.global_step}/{state.max_steps} ({state.global_step / state.max_steps:.0%})"
        print(f"{line}, {speed}, {_duration(seconds / steps * left)} left", flush=True)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Say how the epoch went."""
        scores = given["metrics"]
        line = f"  epoch {state.epoch:g}: validation loss {scores['eval_loss']:.4f}"
        line += f", accuracy {scores['eval_accuracy']:.4f}, macro-F1 {scores['eval_macro_f1']:.4f}"
        if self._bar is not None:
            self._bar.clear()
        print(line, file=sys.stdout, flush=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Leave the bar."""
        if self._bar is not None:
            self._bar.close()


def _point(entry: dict[str, Any]) -> Point | None:
    return training_point(entry) or validation_point(entry)


def _line(entry: dict[str, Any]) -> str:
    point = _point(entry)
    return json.dumps(point) + "\n" if point else ""


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes > 1 else f"{seconds:.0f} s"
