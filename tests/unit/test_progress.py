"""A training that goes wrong says which setting to change, keeps its last good checkpoint, and healthy ones go on."""

import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import TrainerCallback

from stages.common.errors import AttuneError
from stages.common.params.tasks import task_spec
from stages.finetune.checkpoints import WEIGHTS, last_checkpoint
from stages.finetune.machine import explain_memory_errors
from stages.finetune.progress import Progress, divergence
from stages.tasks.text_classification import TASK
from tests.models import Cut, Splits, settings, tokenized, trained


class Spoil(TrainerCallback):
    """Do something to the model before a step."""

    def __init__(self, what: Any, before: int) -> None:
        self.what, self.before = what, before

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step + 1 == self.before:
            self.what(given["model"])


NAN_WEIGHTS = Spoil(lambda model: model.classifier.weight.data.fill_(float("nan")), before=3)
INFINITE_GRADIENT = Spoil(lambda model: model.classifier.weight.register_hook(lambda gradient: gradient * math.inf), 6)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(NAN_WEIGHTS, "by step 4: the loss is nan"), (INFINITE_GRADIENT, "by step 6: the weights are not finite")],
)
def test_a_number_that_is_none_ends_the_training_and_leaves_good_checkpoints(
    base: Path, splits: Splits, tmp_path: Path, spoil: Spoil, what: str
) -> None:
    with pytest.raises(AttuneError) as caught:
        trained(base, splits, tmp_path, spoil, logging_steps=1000, save_steps=2)
    assert f"the training has diverged {what}" in caught.value.what
    assert "finetune.learning_rate (now 0.005)" in caught.value.fix
    last = last_checkpoint(tmp_path)
    assert last and last.name == f"checkpoint-{(spoil.before - 1) // 2 * 2}"
    assert f"the last good checkpoint is {last}; with other settings" in caught.value.fix
    saved = torch.load(last / WEIGHTS, weights_only=True)["weights"]
    assert all(value.isfinite().all() for value in saved.values())


@pytest.mark.parametrize(
    ("values", "every", "steps", "diverged"),
    [
        ([0.7, 0.6] + [2.5] * 10, 10, 200, True),
        ([9.0] * 10, 10, 200, True),  # from the start
        ([0.7, *[9.0, 9.0, 0.7] * 5], 10, 200, True),  # up and down
        ([0.7] * 6 + [800.0] * 4, 10, 200, False),  # a learning rate that is too high for a while
        ([0.7] + [8.0] * 240, 10, 10_000, False),  # long trainings have more patience
        ([0.7] + [8.0] * 260, 10, 10_000, True),
        ([0.5, 0.4, 50.0], 1000, 3000, False),  # one point may be the mean of a spike
        ([0.7] + [9.0] * 31, 1, 33, False),  # a short training is judged at its end
        ([0.7] + [9.0] * 32, 1, 33, True),
    ],
)
def test_a_training_that_stays_far_off_has_diverged(
    values: list[float], every: int, steps: int, diverged: bool
) -> None:
    history = [{"step": number * every, "loss": loss} for number, loss in enumerate(values, 1)]
    assert bool(divergence(history, steps, math.log(2))) == diverged


def test_a_training_with_an_absurd_learning_rate_ends_with_a_message(base: Path, tmp_path: Path) -> None:
    splits = {"train": tokenized(base, 256, 0), "validation": tokenized(base, 16, 1)}
    splits["train"] = splits["train"].with_columns(labels=pl.col("labels").shuffle(0))  # nothing to learn
    absurd = {"learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "bf16": False}
    with pytest.raises(AttuneError) as caught:
        trained(base, splits, tmp_path, num_train_epochs=10, **absurd)
    assert "that of guessing is" in caught.value.what
    assert "finetune.learning_rate (now 1)" in caught.value.fix


@pytest.mark.parametrize("knobs", [{"strategy": "adalora"}, {"class_weights": {"bad": 50.0, "good": 100.0}}])
def test_a_loss_on_another_scale_is_no_divergence(base: Path, tmp_path: Path, knobs: dict[str, Any]) -> None:
    splits = {"train": tokenized(base, 256, 0), "validation": tokenized(base, 16, 1)}
    _, log = trained(base, splits, tmp_path, num_train_epochs=2, learning_rate=1e-6, **knobs)
    assert log[-2]["step"] == 32


@pytest.mark.parametrize(
    ("error", "training", "message", "setting"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True, "the GPU ran", "per_device_train_batch_size (now 16)"),
        (MemoryError(), True, "this machine ran out of memory in training", "tokenize.max_length"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), False, "in validation", "per_device_eval_batch"),
        (RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly"), True, "died", "dataloader_num_workers"),
        (RuntimeError("cannot be converted to type without overflow"), True, "bfloat16", "finetune.bf16: false"),
    ],
)
def test_what_breaks_for_lack_of_memory_names_the_setting(
    error: Exception, training: bool, message: str, setting: str
) -> None:
    with pytest.raises(AttuneError) as caught, explain_memory_errors(settings(), torch.nn.Module().train(training)):
        raise error
    assert message in caught.value.what
    assert setting in caught.value.fix


def test_torch_really_says_so_on_a_processor_and_other_errors_stay_as_they_are() -> None:
    with pytest.raises(AttuneError, match="ran out of memory"), explain_memory_errors(settings(), torch.nn.Module()):
        torch.empty(2**46)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), explain_memory_errors(settings(), torch.nn.Module()):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_cut_training_says_where_it_goes_on(
    base: Path, splits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt, match="the same command goes on from step 4"):
        trained(base, splits, tmp_path, Cut(7), num_train_epochs=2)
    trained(base, splits, tmp_path, num_train_epochs=2)
    assert "going on from step 4" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_speed_and_time(
    base: Path, splits: Splits, tmp_path: Path, terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(base, splits, tmp_path, Progress(terminal, task_spec(TASK.name).headline), num_train_epochs=1)
    output = capsys.readouterr()
    speed = output.err if terminal else output.out
    assert "tokens/s" in speed and "rows/s" in speed
    assert ("00:00 left" in output.out) != terminal
    assert re.search(r"epoch 1: validation loss \d\.\d{4}, macro-F1 \d\.\d{4}, accuracy \d\.\d{4}\n", output.out)
