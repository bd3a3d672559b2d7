"""A training that goes wrong says which setting to change, keeps its last good checkpoint, and healthy ones go on."""

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_training import make_base, settings, tokenized, trained
from transformers import TrainerCallback

from stages.common.errors import AttuneError
from stages.finetune.checkpoints import last_checkpoint
from stages.finetune.guards import diverging, memory_named, remedies
from stages.finetune.progress import CurveLines, Progress

NOTHING = math.log(2)  # the loss of knowing nothing, for two labels


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def splits(base: Path) -> dict[str, pl.DataFrame]:
    return {"train": tokenized(base, 64, 0), "validation": tokenized(base, 32, 1)}


# ── numbers that are none ───────────────────────────────────────────────────────────────────────────────────────────


class Spoil(TrainerCallback):
    """Do something to the model before a step, or after one."""

    def __init__(self, what: Any, before: int = 0, after: int = 0) -> None:
        self.what, self.before, self.after = what, before, after

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step + 1 == self.before:
            self.what(given["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.after:
            self.what(given["model"])


def no_number(model: Any) -> None:
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))


def infinite_bias(model: Any) -> None:
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([float("inf"), 0.0]))


def spoilt_gradient(model: Any) -> None:
    model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.parametrize(
    ("spoil", "step"),
    [
        (Spoil(no_number, before=3), 3),
        (Spoil(infinite_bias, before=6), 6),
        (Spoil(spoilt_gradient, before=6), 7),  # the checkpoint of step 6 would have the weights that came of it
        (Spoil(no_number, after=4), 5),  # at the end of an epoch: the validation sees it
        (Spoil(no_number, after=6), 7),  # where a checkpoint is due
    ],
    ids=["weights", "infinite loss", "gradient", "before validation", "before a checkpoint"],
)
@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_number_that_is_none_ends_the_training_at_once_and_leaves_good_checkpoints(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, spoil: Spoil, step: int, max_grad_norm: float
) -> None:
    with pytest.raises(AttuneError) as caught:
        trained(base, splits, tmp_path, spoil, logging_steps=1000, save_steps=2, max_grad_norm=max_grad_norm)
    assert f"the training has diverged by step {step}: " in caught.value.what
    if spoil.what is no_number and spoil.before:
        assert ": the loss is nan" in caught.value.what  # not only what came of it
    assert "finetune.learning_rate (now 0.005)" in caught.value.fix
    assert ("max_grad_norm: 1.0 (now 0)" in caught.value.fix) == (max_grad_norm == 0)
    last = last_checkpoint(tmp_path)
    assert str(last) in caught.value.fix
    assert "with other settings the training starts from the beginning" in caught.value.fix
    assert Path(str(last)).name == f"checkpoint-{(min(step, 6) - 1) // 2 * 2 if spoil.before else (step - 2) // 2 * 2}"
    for checkpoint in tmp_path.glob("checkpoint-*"):
        assert all(value.isfinite().all() for value in load_file(checkpoint / "model.safetensors").values())


def test_without_a_checkpoint_the_message_says_so(base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(AttuneError, match="no checkpoint yet"):
        trained(base, splits, tmp_path, Spoil(no_number, before=1))


# ── divergence ──────────────────────────────────────────────────────────────────────────────────────────────────────


def history(losses: list[float], every: int = 10) -> list[dict[str, Any]]:
    return [{"step": (at + 1) * every, "loss": loss} for at, loss in enumerate(losses)]


def test_a_training_that_stays_far_off_has_diverged() -> None:
    told = diverging(history([0.7, 0.6] + [2.5] * 10), 200, NOTHING)
    assert told == "the median loss over 100 steps is 2.5, and that of guessing is 0.693"
    assert diverging(history([9.0] * 10), 200, NOTHING)  # from the start
    assert diverging(history([0.7, *[9.0, 9.0, 0.7] * 5]), 200, NOTHING)  # and up and down


def test_a_learning_rate_that_is_too_high_for_a_while_is_let_be() -> None:
    assert not diverging(history([0.7] * 6 + [800.0] * 4), 200, NOTHING)
    assert not diverging(history([0.1] * 3 + [9.0] * 100 + [0.1] * 101), 10_000, NOTHING)


def test_long_trainings_have_more_patience() -> None:
    assert not diverging(history([0.7] + [8.0] * 240), 10_000, NOTHING)
    assert diverging(history([0.7] + [8.0] * 260), 10_000, NOTHING)


def test_one_point_that_is_the_mean_of_a_spike_is_not_enough() -> None:
    assert not diverging(history([50.0], every=1000), 3000, NOTHING)
    assert not diverging(history([0.5, 0.4, 50.0], every=1000), 3000, NOTHING)


@given(
    st.lists(st.floats(0.0, 2.0 * NOTHING), min_size=5, max_size=300),
    st.lists(st.floats(0.0, 1000.0), max_size=4),
    st.integers(1, 100_000),
)
def test_no_noise_below_twice_knowing_nothing_and_no_short_burst_ends_a_training(
    noise: list[float], burst: list[float], steps: int
) -> None:
    assert not diverging(history(noise + burst), steps, NOTHING)


def test_a_training_with_an_absurd_learning_rate_ends_with_a_message(base: Path, tmp_path: Path) -> None:
    splits = {"train": tokenized(base, 256, 0), "validation": tokenized(base, 16, 1)}
    splits["train"] = splits["train"].with_columns(labels=pl.col("labels").shuffle(0))  # nothing to learn
    with pytest.raises(AttuneError) as caught:
        trained(
            base,
            splits,
            tmp_path,
            num_train_epochs=10,
            learning_rate=1.0,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            bf16=False,
        )
    assert "that of guessing is" in caught.value.what
    assert "finetune.learning_rate (now 1)" in caught.value.fix


@pytest.mark.parametrize("knobs", [{"strategy": "adalora"}, {"class_weights": {"bad": 50.0, "good": 100.0}}])
def test_a_loss_on_another_scale_is_no_divergence(base: Path, tmp_path: Path, knobs: dict[str, Any]) -> None:
    splits = {"train": tokenized(base, 256, 0), "validation": tokenized(base, 16, 1)}
    _, log = trained(base, splits, tmp_path, num_train_epochs=8, learning_rate=1e-6, **knobs)
    assert log[-2]["step"] == 128


def test_remedies_are_those_that_are_left() -> None:
    assert remedies(settings(bf16=False, warmup_ratio=0.1)) == "lower finetune.learning_rate (now 0.005)"
    assert "finetune.bf16: false" in remedies(settings(bf16=True))
    assert "finetune.warmup_ratio to 0.06 (now 0)" in remedies(settings(warmup_ratio=0.0))


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Model(torch.nn.Module):
    pass


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the GPU"),
        (MemoryError(), "this machine"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
            "this machine",
        ),
    ],
)
def test_running_out_of_memory_names_the_batch_size(error: Exception, where: str) -> None:
    model = Model()
    with pytest.raises(AttuneError) as caught, memory_named(settings(), model):
        raise error
    assert f"{where} ran out of memory in training" in caught.value.what
    for setting in ("per_device_train_batch_size: 8 (now 16)", "max_tokens_per_batch", "tokenize.max_length"):
        assert setting in caught.value.fix
    model.eval()
    with pytest.raises(AttuneError, match="per_device_eval_batch_size"), memory_named(settings(), model):
        raise error


def test_torch_really_says_so_on_a_processor() -> None:
    with pytest.raises(AttuneError, match="ran out of memory"), memory_named(settings(), Model()):
        torch.empty(2**46)


def test_a_dead_helper_is_told_from_a_lack_of_memory() -> None:
    told = RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly")
    with pytest.raises(AttuneError, match="dataloader_num_workers"), memory_named(settings(), Model()):
        raise told


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_named(settings(), Model()):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


# ── few rows, progress ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "knobs", [{}, {"gradient_accumulation_steps": 4, "save_steps": 1}, {"dataloader_num_workers": 1}]
)
def test_a_single_row_is_enough_to_train_on(base: Path, tmp_path: Path, knobs: dict[str, Any]) -> None:
    splits = {"train": tokenized(base, 1, 0), "validation": tokenized(base, 1, 1)}
    _, log = trained(base, splits, tmp_path, num_train_epochs=2, **knobs)
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [1, 2]


class Stop(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == 6:
            raise KeyboardInterrupt


def test_an_interrupted_training_says_where_it_goes_on(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt, match="`dvc repro` goes on from step 4"):
        trained(base, splits, tmp_path, Stop())
    trained(base, splits, tmp_path)
    assert "going on from step 4" in capsys.readouterr().out


def test_each_point_is_a_line_as_it_comes_and_comes_once(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    def lines(name: str) -> list[dict[str, float]]:
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    knobs = {"num_train_epochs": 2, "logging_steps": 1}
    trained(base, splits, tmp_path / "whole", CurveLines(tmp_path / "logs/whole.jsonl"), **knobs)
    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, tmp_path / "cut", CurveLines(tmp_path / "cut.jsonl"), Stop(), **knobs)
    assert len(lines("cut.jsonl")) == 7  # six steps and a validation
    trained(base, splits, tmp_path / "cut", CurveLines(tmp_path / "cut.jsonl"), **knobs)
    assert lines("cut.jsonl") == lines("logs/whole.jsonl")
    training, validation = lines("cut.jsonl")[3:5]
    assert list(training) == ["step", "epoch", "loss", "learning_rate"]
    assert list(validation) == ["step", "epoch", "validation_loss", "validation_accuracy", "validation_macro_f1"]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_tells_speed_and_time(
    base: Path,
    splits: dict[str, pl.DataFrame],
    tmp_path: Path,
    terminal: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained(base, splits, tmp_path, Progress(terminal), num_train_epochs=1)
    said = capsys.readouterr()
    shown = said.err if terminal else said.out
    assert "tokens/s" in shown and "rows/s" in shown
    assert ("0 s left" in said.out) != terminal
    assert "epoch 1: validation loss" in said.out


def test_a_short_training_is_judged_at_its_end() -> None:
    assert not diverging(history([0.7] + [9.0] * 31, every=1), 33, NOTHING)
    assert diverging(history([0.7] + [9.0] * 32, every=1), 33, NOTHING)
    assert not diverging(history([9.0] * 10 + [0.6] * 23, every=1), 33, NOTHING)
