"""What a person and MLflow see while the model trains."""

import sys
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.common.tracking.live import LiveRun
from stages.finetune.curves import training_point, validation_point

LINES_PER_EPOCH = 4


class LiveTracking(TrainerCallback):
    """Send each point of the curves to MLflow as it comes."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Forward the newest entry of the log."""
        entry = {**given["logs"], "step": state.global_step, "epoch": state.epoch}
        point = training_point(entry) or validation_point(entry)
        if point:
            self._run.log(point, state.global_step)


class LogEachEpoch(TrainerCallback):
    """Log at the end of each epoch: going on from a checkpoint, the trainer forgets the losses since its last log."""

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Ask for a point of the curve before the checkpoint is written."""
        control.should_log = True


class PlainProgress(TrainerCallback):
    """A line now and then where there is no terminal for a progress bar; a line per epoch everywhere."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Say how far the training is, a few times an epoch."""
        every = max(1, state.max_steps // (LINES_PER_EPOCH * max(1, int(args.num_train_epochs))))
        if not self._terminal and state.global_step % every == 0:
            print(
                f"  step {state.global_step}/{state.max_steps} ({state.global_step / state.max_steps:.0%})", flush=True
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Say how the epoch went."""
        scores = given["metrics"]
        line = f"  epoch {state.epoch:g}: validation loss {scores['eval_loss']:.4f}"
        line += f", accuracy {scores['eval_accuracy']:.4f}, macro-F1 {scores['eval_macro_f1']:.4f}"
        print(("\n" if self._terminal else "") + line, file=sys.stdout, flush=True)
