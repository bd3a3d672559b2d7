"""Training: every knob arrives, the best epoch is kept, and nothing but the inputs decides the bytes."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from small_training import LABELS, QUICK, SEED, make_base, tokenized, train_with, weights
from small_training import settings as settings_like
from small_training import trained as trained_like
from transformers import PreTrainedModel, TrainerCallback

from stages.common.digests import sha256_file
from stages.common.params import FinetuneParams
from stages.finetune.arguments import training_arguments
from stages.finetune.curves import training_point, validation_point, write_curves
from stages.finetune.processes import join
from stages.finetune.strategies import prepare, trainable
from stages.tasks.text_classification import build_model

ROWS = 10_000  # for arguments without a training
LIKE = {**QUICK, "num_train_epochs": 2, "logging_steps": 1}
settings, trained = partial(settings_like, LIKE), partial(trained_like, like=LIKE)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def splits(base: Path) -> dict[str, pl.DataFrame]:
    return {"train": tokenized(base, 64, 0), "validation": tokenized(base, 32, 1)}


def saved(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    return sha256_file(folder / "model.safetensors")


def epochs_of(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in history if "eval_loss" in entry]


# ── each knob ───────────────────────────────────────────────────────────────────────────────────────────────────────

ARRIVALS = {
    "num_train_epochs": (7, {"num_train_epochs": 7}),
    "per_device_train_batch_size": (5, {"per_device_train_batch_size": 5}),
    "per_device_eval_batch_size": (6, {"per_device_eval_batch_size": 6}),
    "max_grad_norm": (0.0, {"max_grad_norm": 0.0}),
    "metric_for_best_model": ("loss", {"metric_for_best_model": "eval_loss", "greater_is_better": False}),
    "gradient_accumulation_steps": (3, {"gradient_accumulation_steps": 3}),
    "dataloader_num_workers": (2, {"dataloader_num_workers": 2}),
    "bf16": (False, {"bf16": False}),
    "logging_steps": (9, {"logging_steps": 9}),
}
ELSEWHERE = {  # what a knob does is tested in that file
    **dict.fromkeys(("strategy", "group_by_length", "dropout", "early_stopping_patience"), "test_training.py"),
    **dict.fromkeys(("train_on", "max_tokens_per_batch", "torch_num_threads", "learning_rate"), "test_training.py"),
    "warmup_ratio": "test_training.py",
    **dict.fromkeys(("partial", "lora", "adalora", "ia3", "prefix"), "test_strategies.py"),
    **dict.fromkeys(("merge_adapter", "freeze_embeddings"), "test_strategies.py"),
    **dict.fromkeys(("lr_scheduler_type", "lr_final_ratio"), "test_schedules.py"),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "momentum"), "test_optimizers.py"),
    **dict.fromkeys(("optim", "l1", "weight_decay", "layerwise_lr_decay"), "test_optimizers.py"),
    **dict.fromkeys(("loss", "focal_gamma", "label_smoothing_factor", "class_weights"), "test_objective.py"),
    "greater_is_better": "test_finetune_params.py",  # says what holds anyway, or is refused
    "save_steps": "test_checkpoints.py",
    "nproc_per_node": "../pipeline/test_processes.py",
}


def test_every_knob_has_a_test() -> None:
    assert set(ARRIVALS) | set(ELSEWHERE) == set(FinetuneParams.model_fields)
    assert not set(ARRIVALS) & set(ELSEWHERE)
    here = Path(__file__)
    for knob, file in ELSEWHERE.items():
        mentions = (here.parent / file).read_text(encoding="utf-8").count(knob)
        assert mentions > (file == here.name), f"{file} says nothing of {knob}"  # once is in the table above


@pytest.mark.parametrize("knob", ARRIVALS)
def test_a_knob_reaches_the_trainer(knob: str, tmp_path: Path) -> None:
    value, expected = ARRIVALS[knob]
    assert value != FinetuneParams.model_fields[knob].default
    turned = training_arguments(FinetuneParams(**{knob: value}), tmp_path, SEED, ROWS)
    assert {name: getattr(turned, name) for name in expected} == expected


def test_what_no_knob_turns_stands_firm(tmp_path: Path) -> None:
    arguments = training_arguments(FinetuneParams(), tmp_path, 99, ROWS)
    assert (arguments.seed, arguments.output_dir, arguments.report_to) == (99, str(tmp_path), [])
    assert arguments.metric_for_best_model == "eval_macro_f1"
    assert arguments.greater_is_better


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    _, history = trained(base, splits, tmp_path, warmup_ratio=0.5, learning_rate=0.008)
    rates = [point["learning_rate"] for entry in history if (point := training_point(entry))]
    assert rates == pytest.approx([0.0, 0.002, 0.004, 0.006, 0.008, 0.006, 0.004, 0.002])


def test_weight_decay_and_clipping_change_what_is_learned(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    runs = {
        name: trained(base, splits, tmp_path / name, num_train_epochs=1, **knobs)[0].classifier.weight
        for name, knobs in {
            "plain": {"weight_decay": 0.0, "max_grad_norm": 0.0},
            "decayed": {"weight_decay": 1.0, "max_grad_norm": 0.0},
            "clipped": {"weight_decay": 0.0, "max_grad_norm": 1e-6},
            "dropped": {"weight_decay": 0.0, "max_grad_norm": 0.0, "dropout": 0.5},
        }.items()
    }
    assert len({tuple(one.flatten().tolist()) for one in runs.values()}) == 4


def test_the_number_of_threads_is_set() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (3, 2):
            join(settings(torch_num_threads=threads))
            assert torch.get_num_threads() == threads
        join(settings())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ── what is trained ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("strategy", ["head", "full"])
def test_the_strategy_says_which_weights_change(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, strategy: str
) -> None:
    before = weights(build_model(base, list(LABELS), None, SEED))
    model, _ = trained(base, splits, tmp_path, strategy=strategy, num_train_epochs=1)
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    head = {"classifier.weight", "classifier.bias"}
    assert changed == head if strategy == "head" else changed > head


def test_the_number_of_weights_that_train_is_counted(base: Path) -> None:
    model = build_model(base, list(LABELS), None, SEED)
    assert trainable(prepare(model, settings())) == sum(value.numel() for value in model.parameters())
    assert trainable(prepare(model, settings(strategy="head"))) == 16 * 2 + 2


def test_a_training_learns(base: Path, tmp_path: Path) -> None:
    more = {"train": tokenized(base, 320, 0), "validation": tokenized(base, 100, 1)}
    _, history = trained(base, more, tmp_path, num_train_epochs=8, learning_rate=0.02)
    accuracies = [entry["eval_accuracy"] for entry in epochs_of(history)]
    assert max(accuracies) > 0.9


# ── which epoch is kept ─────────────────────────────────────────────────────────────────────────────────────────────


class Keeper(TrainerCallback):
    """Remember the head's weights at the end of each epoch."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.weights.append(given["model"].classifier.weight.detach().clone())


def with_scores(base: Path, splits: dict[str, pl.DataFrame], folder: Path, **knobs: Any) -> tuple[Any, Keeper, list]:
    """Train with given validation scores per epoch (`accuracies`), in the place of those measured."""
    accuracies = knobs.pop("accuracies")
    keeper = Keeper()
    params = settings(num_train_epochs=len(accuracies), **knobs)

    def measured(prediction: Any) -> dict[str, float]:
        at = len(keeper.weights)
        return {"accuracy": accuracies[at], "macro_f1": 1 - accuracies[at]}

    model, history = train_with(params, base, splits, folder, keeper, metrics=measured)
    return model, keeper, epochs_of(history)


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 1), ("macro_f1", 2)])
def test_the_epoch_with_the_highest_score_is_kept(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, metric: str, best: int
) -> None:
    model, keeper, _ = with_scores(base, splits, tmp_path, accuracies=[0.6, 0.9, 0.3], metric_for_best_model=metric)
    same = [torch.equal(model.classifier.weight, one) for one in keeper.weights]
    assert same == [at == best for at in range(3)]


def test_the_epoch_with_the_lowest_loss_is_kept(base: Path, tmp_path: Path) -> None:
    """Labels that say nothing are learned by heart: the validation loss rises while accuracy wanders."""
    noise = {"train": tokenized(base, 64, 0, flip=0.5), "validation": tokenized(base, 32, 1, flip=0.5)}
    model, keeper, found = with_scores(
        base, noise, tmp_path, accuracies=[0.1, 0.2, 0.3, 0.4], metric_for_best_model="loss", learning_rate=0.03
    )
    losses = [entry["eval_loss"] for entry in found]
    best = losses.index(min(losses))
    assert best < len(losses) - 1  # keeping the last epoch would not do
    assert torch.equal(model.classifier.weight, keeper.weights[best])


def test_with_the_validation_rows_it_learns_from_all_and_keeps_the_last_epoch(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    """There are no rows left that could say which epoch is best."""
    knobs = {"train_on": "train_and_validation", "early_stopping_patience": None}
    model, keeper, found = with_scores(base, splits, tmp_path, accuracies=[0.9, 0.6, 0.3], **knobs)
    assert [entry["step"] for entry in found] == [6, 12, 18]  # of 64 and 32 rows, in batches of 16
    same = [torch.equal(model.classifier.weight, one) for one in keeper.weights]
    assert same == [False, False, True]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (9, 6)])
def test_training_stops_after_epochs_without_a_better_score(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path, patience: int, epochs: int
) -> None:
    accuracies = [0.5, 0.9, 0.8, 0.8, 0.8, 0.8]
    _, _, found = with_scores(
        base,
        splits,
        tmp_path,
        accuracies=accuracies,
        metric_for_best_model="accuracy",
        early_stopping_patience=patience,
    )
    assert len(found) == epochs


def test_a_training_of_few_steps_has_a_point_per_epoch(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    _, history = trained(base, splits, tmp_path, logging_steps=1000)
    write_curves(history, tmp_path / "training.csv", tmp_path / "validation.csv")
    assert [line.split(",")[0] for line in (tmp_path / "training.csv").read_text().splitlines()] == ["step", "4", "8"]


def test_curves_without_points_have_their_columns(tmp_path: Path) -> None:
    write_curves([], tmp_path / "training.csv", tmp_path / "validation.csv")
    assert (tmp_path / "training.csv").read_text() == "step,epoch,loss,learning_rate\n"


# ── the same inputs, the same bytes ─────────────────────────────────────────────────────────────────────────────────


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    digests = [
        saved(trained(base, splits, tmp_path / f"run{at}", seed=seed)[0], tmp_path / f"model{at}")
        for at, seed in enumerate([SEED, SEED, SEED + 1])
    ]
    assert digests[0] == digests[1] != digests[2]


class Kill(TrainerCallback):
    """End the training the hard way: in the middle of an epoch."""

    def __init__(self, at_step: int) -> None:
        self.at_step = at_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.at_step:
            raise KeyboardInterrupt


def test_a_training_cut_short_after_its_last_epoch_gives_the_same_model(
    base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    whole, history = trained(base, splits, tmp_path / "run")
    again, log = trained(base, splits, tmp_path / "run")
    assert saved(again, tmp_path / "b") == saved(whole, tmp_path / "a")
    assert epochs_of(log)[-1]["eval_loss"] == epochs_of(history)[-1]["eval_loss"]


def test_a_resumed_training_remembers_its_patience(base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    """Two epochs without a better score end it, also when it was cut short between them."""
    accuracies = [0.9, 0.8, 0.8, 0.8, 0.8, 0.8]

    def run(folder: Path, *callbacks: TrainerCallback) -> list[dict[str, Any]]:
        params = settings(num_train_epochs=6, early_stopping_patience=2, metric_for_best_model="accuracy")

        def measured(prediction: Any) -> dict[str, float]:
            done = len(list(csv.DictReader((tmp_path / "count").open()))) if (tmp_path / "count").exists() else 0
            return {"accuracy": accuracies[min(done, 5)], "macro_f1": 0.5}

        count = Counting(tmp_path / "count")
        return epochs_of(train_with(params, base, splits, folder, count, *callbacks, metrics=measured)[1])

    assert len(run(tmp_path / "whole")) == 3
    (tmp_path / "count").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Kill(at_step=9))  # in the third epoch
    assert len(run(tmp_path / "cut")) == 3


class Counting(TrainerCallback):
    """Count the validations of a training over several processes."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        lines = self.file.read_text() if self.file.exists() else "validation\n"
        self.file.write_text(lines + "one\n")


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Widths(TrainerCallback):
    """Hook into the model to see how wide its batches are, and how much of them is padding."""

    def __init__(self) -> None:
        self.padding: list[float] = []
        self.tokens: list[int] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        model = given["model"]

        def look(_: Any, arguments: Any, inputs: dict[str, torch.Tensor]) -> None:
            if model.training:
                self.padding.append(1 - inputs["attention_mask"].float().mean().item())
                self.tokens.append(inputs["input_ids"].numel())

        model.register_forward_pre_hook(look, with_kwargs=True)


def test_batches_of_similar_lengths_hold_less_padding(base: Path, tmp_path: Path) -> None:
    many = {"train": tokenized(base, 240, 0), "validation": tokenized(base, 8, 1)}
    shares = {}
    for grouped in (True, False):
        widths = Widths()
        trained(
            base,
            many,
            tmp_path / str(grouped),
            widths,
            group_by_length=grouped,
            num_train_epochs=1,
            per_device_train_batch_size=8,
        )
        assert len(widths.padding) == 30
        shares[grouped] = float(np.mean(widths.padding))
    assert shares[True] < 0.5 * shares[False]


def test_no_batch_is_over_the_budget_of_tokens(base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    seen = {}
    for budget in (None, 64):
        widths = Widths()
        trained(base, splits, tmp_path / str(budget), widths, max_tokens_per_batch=budget, num_train_epochs=1)
        seen[budget] = widths.tokens
    assert max(seen[64]) <= 64 < max(seen[None])
    assert len(seen[64]) > len(seen[None])


# ── curves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_curves_hold_no_times_and_no_rates(base: Path, splits: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    _, history = trained(base, splits, tmp_path)
    assert any("runtime" in key for entry in history for key in entry)  # the trainer's log does
    write_curves(history, tmp_path / "training.csv", tmp_path / "validation.csv")
    with (tmp_path / "training.csv").open() as file:
        training = list(csv.DictReader(file))
    with (tmp_path / "validation.csv").open() as file:
        validation = list(csv.DictReader(file))
    assert list(training[0]) == ["step", "epoch", "loss", "learning_rate"]
    assert list(validation[0]) == ["step", "epoch", "validation_loss", "validation_accuracy", "validation_macro_f1"]
    assert [row["step"] for row in training] == [str(step) for step in range(1, 9)]
    assert [(row["step"], row["epoch"]) for row in validation] == [("4", "1.0"), ("8", "2.0")]


def test_other_entries_of_the_log_are_no_points() -> None:
    summary = {"train_runtime": 3.0, "train_loss": 0.5, "epoch": 2.0, "step": 8}
    assert training_point(summary) is None
    assert validation_point(summary) is None
