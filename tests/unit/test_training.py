"""Training: params arrive, the best epoch is kept, and nothing but the inputs decides the bytes."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from stages.common.params import FinetuneParams
from stages.finetune.processes import join
from stages.finetune.progress import curve_point, write_curves
from stages.finetune.training import training_arguments
from tests.models import QUICK, SEED, Splits, losses, result, tokenized
from tests.models import trained as trained_like

LIKE = {**QUICK, "num_train_epochs": 2, "logging_steps": 1}
trained = partial(trained_like, like=LIKE)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def splits(base: Path) -> Splits:
    return {"train": tokenized(base, 64, 0), "validation": tokenized(base, 32, 1)}


def test_params_are_the_arguments_of_the_same_name(tmp_path: Path) -> None:
    names = ("num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size")
    names += ("gradient_accumulation_steps", "dataloader_num_workers", "logging_steps", "max_grad_norm")
    params = FinetuneParams(**{name: at + 3 for at, name in enumerate(names)}, bf16=False)
    arguments = training_arguments(params, tmp_path, 99, rows=10_000)
    assert {name: getattr(arguments, name) for name in names} == {name: at + 3 for at, name in enumerate(names)}
    assert (arguments.seed, arguments.output_dir, arguments.report_to) == (99, str(tmp_path), [])
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("eval_macro_f1", True)
    assert not arguments.bf16


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(base: Path, splits: Splits, tmp_path: Path) -> None:
    _, history = trained(base, splits, tmp_path, warmup_ratio=0.5, learning_rate=0.008)
    assert losses(history, "learning_rate") == pytest.approx([0.0, 0.002, 0.004, 0.006, 0.008, 0.006, 0.004, 0.002])


def test_weight_decay_clipping_and_dropout_change_what_is_learned(base: Path, splits: Splits, tmp_path: Path) -> None:
    plain = {"weight_decay": 0.0, "max_grad_norm": 0.0, "num_train_epochs": 1}
    changes = ({}, {"weight_decay": 1.0}, {"max_grad_norm": 1e-6}, {"dropout": 0.5})
    heads = [
        trained(base, splits, tmp_path / str(at), **plain | change)[0].classifier.weight.flatten().tolist()
        for at, change in enumerate(changes)
    ]
    assert len(set(map(tuple, heads))) == 4


def test_the_number_of_threads_is_set() -> None:
    for threads in (2, 1):
        join(FinetuneParams(torch_num_threads=threads))
        assert torch.get_num_threads() == threads
    join(FinetuneParams())
    assert torch.get_num_threads() == 1


def test_a_training_learns(base: Path, tmp_path: Path) -> None:
    more = {"train": tokenized(base, 320, 0), "validation": tokenized(base, 100, 1)}
    _, history = trained(base, more, tmp_path, num_train_epochs=8, learning_rate=0.005)
    assert max(losses(history, "eval_accuracy")) > 0.9


def test_no_batch_is_over_the_budget_of_tokens(base: Path, splits: Splits, tmp_path: Path) -> None:
    seen: dict[int | None, list[int]] = {None: [], 64: []}
    for budget, sizes in seen.items():

        class Look(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, sizes: Any = sizes, **given: Any) -> None:
                model = given["model"]
                note = lambda _, at, inputs: sizes.append(inputs["input_ids"].numel()) if model.training else None  # noqa: E731
                model.register_forward_pre_hook(note, with_kwargs=True)

        trained(base, splits, tmp_path / str(budget), Look(), max_tokens_per_batch=budget, num_train_epochs=1)
    assert max(seen[64]) <= 64 < max(seen[None])
    assert len(seen[64]) > len(seen[None])


def with_scores(
    base: Path, splits: Splits, folder: Path, accuracies: list[float], **knobs: Any
) -> tuple[list[bool], list[dict[str, Any]]]:
    """Train with these validation scores; return for each epoch whether its weights were kept, and the log."""
    heads: list[torch.Tensor] = []

    class Keep(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            heads.append(given["model"].classifier.weight.detach().clone())

    def measured(prediction: Any) -> dict[str, float]:
        return {"accuracy": accuracies[len(heads)], "macro_f1": 1 - accuracies[len(heads)]}

    knobs = {"num_train_epochs": len(accuracies), **knobs}
    model, history = trained(base, splits, folder, Keep(), metrics=measured, **knobs)
    return [torch.equal(model.classifier.weight, head) for head in heads], history


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 1), ("macro_f1", 2)])
def test_the_epoch_with_the_highest_score_is_kept(
    base: Path, splits: Splits, tmp_path: Path, metric: str, best: int
) -> None:
    kept, _ = with_scores(base, splits, tmp_path, [0.6, 0.9, 0.3], metric_for_best_model=metric)
    assert kept == [at == best for at in range(3)]


def test_the_epoch_with_the_lowest_loss_is_kept(base: Path, tmp_path: Path) -> None:
    """Labels that say nothing are learned by heart: the validation loss rises while accuracy wanders."""
    noise = {"train": tokenized(base, 64, 0, flip=0.5), "validation": tokenized(base, 32, 1, flip=0.5)}
    knobs = {"metric_for_best_model": "loss", "learning_rate": 0.03}
    kept, history = with_scores(base, noise, tmp_path, [0.1, 0.2, 0.3, 0.4], **knobs)
    measured = losses(history, "eval_loss")
    assert kept == [value == min(measured) for value in measured]
    assert not kept[-1]  # keeping the last epoch would not do


def test_with_the_validation_rows_it_learns_from_all_and_keeps_the_last_epoch(
    base: Path, splits: Splits, tmp_path: Path
) -> None:
    """There are no rows left that could say which epoch is best."""
    knobs = {"train_on": "train_and_validation", "early_stopping_patience": None}
    kept, history = with_scores(base, splits, tmp_path, [0.9, 0.6, 0.3], **knobs)
    assert [entry["step"] for entry in history if "eval_loss" in entry] == [6, 12, 18]  # 96 rows by 16
    assert kept == [False, False, True]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (9, 6)])
def test_training_stops_after_epochs_without_a_better_score(
    base: Path, splits: Splits, tmp_path: Path, patience: int, epochs: int
) -> None:
    knobs = {"metric_for_best_model": "accuracy", "early_stopping_patience": patience}
    kept, _ = with_scores(base, splits, tmp_path, [0.5, 0.9, 0.8, 0.8, 0.8, 0.8], **knobs)
    assert len(kept) == epochs


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(base: Path, splits: Splits, tmp_path: Path) -> None:
    results = [
        result(trained(base, splits, tmp_path / f"run{at}", seed=seed), tmp_path / f"model{at}")
        for at, seed in enumerate([SEED, SEED, SEED + 1])
    ]
    assert results[0] == results[1] != results[2]


def read(history: list[dict[str, Any]], folder: Path) -> list[list[dict[str, str]]]:
    files = [folder / "training.csv", folder / "validation.csv"]
    write_curves(history, *files)
    return [list(csv.DictReader(file.read_text().splitlines())) for file in files]


def test_curves_hold_no_times_and_no_rates(base: Path, splits: Splits, tmp_path: Path) -> None:
    _, history = trained(base, splits, tmp_path)
    assert any("runtime" in key for entry in history for key in entry)  # the trainer's log does
    training, validation = read(history, tmp_path)
    assert list(training[0]) == ["step", "epoch", "loss", "learning_rate"]
    assert list(validation[0]) == ["step", "epoch", "validation_loss", "validation_accuracy", "validation_macro_f1"]
    assert [row["step"] for row in training] == [str(step) for step in range(1, 9)]
    assert [(row["step"], row["epoch"]) for row in validation] == [("4", "1.0"), ("8", "2.0")]
    assert curve_point({"train_runtime": 3.0, "train_loss": 0.5, "epoch": 2.0, "step": 8}) is None


def test_a_training_of_few_steps_has_a_point_per_epoch(base: Path, splits: Splits, tmp_path: Path) -> None:
    _, history = trained(base, splits, tmp_path, logging_steps=1000)
    assert [row["step"] for row in read(history, tmp_path)[0]] == ["4", "8"]
    assert read([], tmp_path) == [[], []]
    assert (tmp_path / "training.csv").read_text() == "step,epoch,loss,learning_rate\n"
