"""Scores: scikit-learn's numbers, with intervals that mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from stages.common.params.evaluate import Bootstrap
from stages.evaluate import scores
from stages.tasks import scores as drawing
from stages.tasks.scores import confusion, scores_of

NAMES = ["accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"]


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Actual and predicted class numbers; classes may be absent from either or from both."""
    classes = draw(st.integers(2, 6))
    rows = draw(st.integers(1, 60))
    numbers = st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)
    return np.array(draw(numbers)), np.array(draw(numbers)), classes


def coin(rows: int, right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, each row predicted rightly with the chance `right`."""
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, 2, rows)
    return actual, np.where(generator.random(rows) < right, actual, 1 - actual)


@given(answers())
def test_scores_are_scikit_learns(given_answers: tuple[np.ndarray, np.ndarray, int]) -> None:
    actual, predicted, classes = given_answers
    ours = scores_of(confusion(actual, predicted, classes))
    options = {"zero_division": 0}
    theirs = {
        "accuracy": accuracy_score(actual, predicted),
        "macro_f1": f1_score(actual, predicted, average="macro", **options),
        "weighted_f1": f1_score(actual, predicted, average="weighted", **options),
        "macro_precision": precision_score(actual, predicted, average="macro", **options),
        "macro_recall": recall_score(actual, predicted, average="macro", **options),
    }
    assert {name: float(value) for name, value in ours.items()} == pytest.approx(theirs, abs=1e-12)


@given(st.lists(answers().filter(lambda one: one[2] == 3), min_size=1, max_size=4))
def test_many_confusion_matrices_at_once_score_as_one_by_one(many: list[tuple[np.ndarray, np.ndarray, int]]) -> None:
    matrices = [confusion(actual, predicted, 3) for actual, predicted, _ in many]
    together = scores_of(np.stack(matrices))
    for at, matrix in enumerate(matrices):
        alone = scores_of(matrix)
        assert {name: together[name][at] for name in NAMES} == {name: float(alone[name]) for name in NAMES}


def test_confusion_counts_actual_in_rows_and_predicted_in_columns() -> None:
    counts = confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_every_score_comes_with_both_bounds() -> None:
    report = scores.with_intervals(*coin(50, 0.8, 0), 2, Bootstrap(resamples=100), seed=1)
    assert sorted(report) == sorted(f"{name}{bound}" for name in NAMES for bound in ("", "_low", "_high"))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.55, 0.95), st.integers(100, 400))
def test_intervals_contain_the_point_estimate(seed: int, right: float, rows: int) -> None:
    report = scores.with_intervals(*coin(rows, right, seed), 2, Bootstrap(resamples=200), seed=seed)
    for name in NAMES:
        assert report[f"{name}_low"] <= report[name] <= report[f"{name}_high"]


def test_intervals_depend_on_the_seed_alone() -> None:
    data = coin(300, 0.8, 0)
    again = [scores.with_intervals(*data, 2, Bootstrap(resamples=200), seed=seed) for seed in (7, 7, 8)]
    assert again[0] == again[1]
    assert again[0] != again[2]
    assert [again[0][name] for name in NAMES] == [again[2][name] for name in NAMES]


def test_intervals_do_not_depend_on_how_many_draws_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = coin(37, 0.8, 0)
    whole = scores.with_intervals(*data, 2, Bootstrap(resamples=150), seed=7)
    for draws in (1, 37 * 4, 1000):
        monkeypatch.setattr(drawing, "CHUNK", draws)
        assert scores.with_intervals(*data, 2, Bootstrap(resamples=150), seed=7) == whole


def test_hundreds_of_labels_fit_into_memory() -> None:
    """One confusion matrix of 600 labels takes 2.9 MB: those of all 2,000 resamples together would take 5.8 GB."""
    import tracemalloc

    actual = np.random.default_rng(0).integers(0, 600, 1000)
    tracemalloc.start()
    try:
        scores.with_intervals(actual, actual, 600, Bootstrap(resamples=100), seed=7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150_000_000


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    trials, truth = 300, 0.75
    covered = 0
    for trial in range(trials):
        report = scores.with_intervals(*coin(200, truth, trial), 2, Bootstrap(resamples=300, confidence=0.9), trial)
        covered += report["accuracy_low"] <= truth <= report["accuracy_high"]
    assert 0.84 <= covered / trials <= 0.95  # 0.9, give or take three standard errors (0.017 each)


def test_per_class_scores_are_those_of_each_label() -> None:
    actual, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    report = scores.per_class(actual, predicted, ["no", "yes", "never"])
    assert report == {
        "no": {"precision": 0.666667, "recall": 0.666667, "f1": 0.666667, "support": 3},
        "yes": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        "never": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }


def test_log_loss_is_scikit_learns_and_knows_labels_without_rows() -> None:
    actual, probabilities = np.array([0, 1, 1]), np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]])
    assert scores.log_loss_of(actual, probabilities) == pytest.approx(
        log_loss(actual, probabilities, labels=[0, 1, 2]), abs=1e-6
    )
