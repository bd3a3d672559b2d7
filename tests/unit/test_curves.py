"""The table of predictions, scores by class, the headline, and the ROC and precision-recall curves."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.params.tasks import Score, TaskSpec
from stages.common.schemas import Predictions
from stages.evaluate.results import headline
from stages.tasks.curves import POINTS, per_class, precision_recall, roc
from stages.tasks.text_classification import TASK, LabelDecision

TWO, THREE = ["no", "yes"], ["a", "b", "c"]


def test_the_table_of_predictions_keeps_its_contract(tmp_path: Path) -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.05, 0.9, 0.05], [0.0, 0.0, 1.0]])
    test = pl.DataFrame({"id": ["1", "2", "3", "4"], "label": ["a", "c", "a", "a"]})
    decision = LabelDecision(task=TASK.name, labels=THREE, thresholds={"b": 0.6, "c": 2.0})
    quality = pl.Series("label_quality", TASK.label_quality(test, probabilities, decision))
    rows = test.hstack(pl.DataFrame(TASK.decide(probabilities, decision))).with_columns(quality)
    written = Predictions.write(rows, tmp_path / "predictions.parquet")
    assert written["prediction"].to_list() == ["a", "b", "b", "c"]
    assert written["confidence"].to_list() == [0.7, 0.5, 0.9, 1.0]
    assert written["probabilities"].to_list() == probabilities.tolist()
    assert written["abstained"].to_list() == [False, True, False, True]
    assert written["label_quality"].to_list() == pytest.approx([0.75, 0.45, 0.075, 0.0])  # how far a likelier label is


def test_per_class_scores_are_those_of_each_label() -> None:
    actual, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    assert per_class(actual, predicted, ["no", "yes", "never"]) == {
        "no": {"precision": 0.666667, "recall": 0.666667, "f1": 0.666667, "support": 3},
        "yes": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        "never": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }


def of_yes(probability: np.ndarray) -> np.ndarray:
    """Probabilities [n x 2] of `no` and `yes`."""
    return np.stack([1 - probability, probability], axis=1)


@given(st.integers(0, 10_000), st.integers(2, 400))
def test_curves_never_run_back(seed: int, rows: int) -> None:
    generator = np.random.default_rng(seed)
    actual, probabilities = np.array([0, 1, *generator.integers(0, 2, rows)]), of_yes(generator.random(rows + 2))
    x, y = roc(actual, probabilities, TWO).select("fpr", "tpr").to_numpy().T
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
    recall, precision = precision_recall(actual, probabilities, TWO).select("recall", "precision").to_numpy().T
    assert (recall[0], recall[-1]) == (0, 1)
    assert (np.diff(recall) >= 0).all()
    assert ((precision >= 0) & (precision <= 1)).all()
    assert max(len(x), len(recall)) <= POINTS


def test_of_equal_recall_the_better_precision_comes_first() -> None:
    curve = precision_recall(np.array([1, 0, 0, 1, 0]), of_yes(np.array([0.9, 0.8, 0.7, 0.6, 0.5])), TWO)
    assert curve["recall"].to_list() == [0.0, 0.5, 0.5, 0.5, 1.0]
    assert curve["precision"].to_list() == pytest.approx([1.0, 1.0, 0.5, 1 / 3, 0.5], abs=1e-6)
    perfect = precision_recall(np.array([1, 1, 0]), of_yes(np.array([0.9, 0.8, 0.7])), TWO)
    assert set(perfect["precision"]) == {1.0}


@pytest.mark.parametrize("curve", [roc, precision_recall])
def test_two_labels_have_one_curve_more_have_one_each_and_a_label_without_rows_none(curve: Any) -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = curve(np.array([0, 1, 0]), of_yes(np.array([0.2, 0.6, 0.7])), TWO)
        three = curve(np.array([0, 1, 2] * 2), probabilities, THREE)
        two = curve(np.array([0, 1] * 3), probabilities, THREE)
        none = curve(np.array([0, 0]), of_yes(np.array([0.2, 0.6])), TWO)
    expected = {"one": (one, ["yes"]), "three": (three, THREE), "two": (two, ["a", "b"]), "none": (none, [])}
    for name, (table, labels) in expected.items():
        assert table["label"].unique(maintain_order=True).to_list() == labels, name
        assert not np.isnan(table.select(pl.exclude("label")).to_numpy()).any()
    assert none.columns == one.columns


def test_the_headline_is_of_the_best_baseline_and_leaves_out_what_there_is_none_of() -> None:
    """Whether more or less of a score is better: over the best baseline, the gain is least."""
    known = Score("mae", "MAE", greater_is_better=False), Score("pearson", "r"), Score("other", "other")
    spec = TaskSpec("numbers", "a number", known, (), ())
    intervals = {f"{name}{end}": 1.0 for name in ("mae", "pearson", "other") for end in ("", "_low", "_high")}
    baselines = {name: {"mae_gain": gain, "mae_gain_low": 0, "mae_gain_high": 9} for name, gain in (("a", 3), ("b", 2))}
    scores = {"rows": 5, **intervals, "baselines": {}, "behaviour": {}, "model": {"bytes": 8, "parameters": 2}}
    assert [*headline(scores, spec)] == ["rows", *[*intervals][:6], "parameters"]
    given = (("a", 3, 2), ("b", 1, 1), ("c", 0, 0))
    tests = {name: {"cases": cases, "passed": passed} for name, cases, passed in given}
    parts = {"calibration": {"ece": 0.1}, "log_loss": 0.4, "thresholds": {"coverage": 0.8}, "behaviour": tests}
    numbers = headline({**scores, **parts, "baselines": baselines}, spec)
    assert list(numbers.items())[7:] == [
        *{"gain": 2, "gain_low": 0, "gain_high": 9, "ece": 0.1, "log_loss": 0.4}.items(),
        *{"coverage": 0.8, "behaviour_passed": 0.75, "parameters": 2}.items(),
    ]
    numbers = headline({**scores, "calibration": {"nominal": 0.9, "coverage": 0.88}, "thresholds": None}, spec)
    assert list(numbers.items())[7:] == [("coverage", 0.88), ("parameters", 2)]
