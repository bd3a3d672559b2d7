"""Training: params arrive, the best epoch is kept, and nothing but the inputs decides the bytes."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from stages.common.params import FinetuneParams
from stages.common.params.tasks import task_spec
from stages.finetune.machine import join
from stages.finetune.progress import write_curves
from stages.tasks.text_classification import TASK
from tests.models import QUICK, Scored, Splits, losses, tokenized
from tests.models import trained as trained_like

LIKE = {**QUICK, "num_train_epochs": 2, "logging_steps": 1}
trained = partial(trained_like, like=LIKE)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(base: Path, splits: Splits, tmp_path: Path) -> None:
    _, history = trained(base, splits, tmp_path, warmup_ratio=0.5, learning_rate=0.008)
    assert losses(history, "learning_rate") == pytest.approx([0.0, 0.002, 0.004, 0.006, 0.008, 0.006, 0.004, 0.002])


def test_the_number_of_threads_is_set() -> None:
    for threads in (2, 1):
        join(FinetuneParams(torch_num_threads=threads))
        assert torch.get_num_threads() == threads
    join(FinetuneParams())
    assert torch.get_num_threads() == 1


def with_scores(
    base: Path, splits: Splits, folder: Path, accuracies: list[float], **knobs: Any
) -> tuple[list[bool], list[dict[str, Any]]]:
    """Train with these validation scores; return for each epoch whether its weights were kept, and the log."""
    heads: list[torch.Tensor] = []

    class Keep(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            heads.append(given["model"].classifier.weight.detach().clone())

    def measured() -> dict[str, float]:
        return {"accuracy": accuracies[len(heads)], "macro_f1": 1 - accuracies[len(heads)]}

    knobs = {"num_train_epochs": len(accuracies), **knobs}
    model, history = trained(base, splits, folder, Keep(), task=Scored(measured), **knobs)
    return [torch.equal(model.classifier.weight, head) for head in heads], history


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
    kept, history = with_scores(base, splits, tmp_path, [0.9, 0.6], **knobs)
    assert [entry["step"] for entry in history if "eval_loss" in entry] == [6, 12]  # 96 rows by 16
    assert kept == [False, True]


def test_training_keeps_the_best_epoch_and_stops_after_some_without_a_better_score(
    base: Path, splits: Splits, tmp_path: Path
) -> None:
    knobs = {"metric_for_best_model": "macro_f1", "early_stopping_patience": 2}  # 1 - accuracy
    kept, _ = with_scores(base, splits, tmp_path, [0.5, 0.1, 0.2, 0.2, 0.2, 0.2], **knobs)
    assert kept == [False, True, False, False]


def test_curves_hold_no_times_and_a_point_per_epoch_even_of_few_steps(
    base: Path, splits: Splits, tmp_path: Path
) -> None:
    files = [tmp_path / "training.csv", tmp_path / "validation.csv"]
    _, history = trained(base, splits, tmp_path, logging_steps=1000)
    assert any("runtime" in key for entry in history for key in entry)  # the trainer's log does
    write_curves(history, *files)
    names = ["loss", "learning_rate"], ["loss", *sorted(score.name for score in task_spec(TASK.name).scores)]
    for file, expected in zip(files, names, strict=True):
        header, *rows = csv.reader(file.read_text().splitlines())
        assert header == ["step", "epoch", "name", "value"]
        points = (("4", "1.0"), ("8", "2.0"))
        assert [tuple(row[:3]) for row in rows] == [(*point, name) for point in points for name in expected]
    sorted_by_name = [dict(sorted(entry.items())) for entry in history]  # as a checkpoint's log is
    write_curves(sorted_by_name[:-1], *(again := [tmp_path / "again.csv", tmp_path / "validated again.csv"]))
    assert [file.read_text() for file in again] == [file.read_text() for file in files]
    write_curves([], *files)
    assert {file.read_text() for file in files} == {"step,epoch,name,value\n"}
