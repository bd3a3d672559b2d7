"""Scores are scikit-learn's, intervals mean what they say, and gains are those of the same draws."""

import tracemalloc
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from stages.common.params.evaluate import Bootstrap
from stages.tasks import bootstrap
from stages.tasks.bootstrap import class_gains, compare, confusion, scores_of, scores_with_intervals

QUICK = Bootstrap(resamples=100)
NAMES = ["accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"]

Answers = tuple[np.ndarray, np.ndarray, np.ndarray, int]


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    """Actual class numbers and those that two models predict; classes may be absent from each of them."""
    classes, rows = draw(st.integers(2, 6)), draw(st.integers(1, 60))
    numbers = st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)
    return np.array(draw(numbers)), np.array(draw(numbers)), np.array(draw(numbers)), classes


def coin(rows: int, seed: int, *chances: float) -> list[np.ndarray]:
    """Two classes, and the predictions of models that are right with these chances."""
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, 2, rows)
    return [actual, *(np.where(generator.random(rows) < chance, actual, 1 - actual) for chance in chances)]


@given(answers())
def test_scores_are_scikit_learns(given_answers: Answers) -> None:
    actual, predicted, _, classes = given_answers
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


def test_intervals_depend_on_the_seed_alone_and_not_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = coin(37, 0, 0.8)
    first, other = (scores_with_intervals(*rows, 2, Bootstrap(resamples=150), seed) for seed in (7, 8))
    assert first != other
    assert sorted(first) == sorted(f"{name}{bound}" for name in NAMES for bound in ("", "_low", "_high"))
    assert all(first[f"{name}_low"] <= first[name] <= first[f"{name}_high"] for name in NAMES)
    assert [first[name] for name in NAMES] == [other[name] for name in NAMES]
    for numbers in (1, 37 * 4, 1000):
        monkeypatch.setattr(bootstrap, "CHUNK", numbers)
        assert scores_with_intervals(*rows, 2, Bootstrap(resamples=150), 7) == first


def test_hundreds_of_labels_fit_into_memory() -> None:
    """One confusion matrix of 600 labels takes 2.9 MB: those of all 2,000 resamples together would take 5.8 GB."""
    actual = np.random.default_rng(0).integers(0, 600, 1000)
    tracemalloc.start()
    try:
        scores_with_intervals(actual, actual, 600, QUICK, seed=7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150_000_000


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    trials, truth, params = 300, 0.75, Bootstrap(resamples=200, confidence=0.9)
    reports = [scores_with_intervals(*coin(200, trial, truth), 2, params, trial) for trial in range(trials)]
    covered = sum(report["accuracy_low"] <= truth <= report["accuracy_high"] for report in reports)
    assert 0.84 <= covered / trials <= 0.95  # 0.9, give or take three standard errors (0.017 each)


# ── two models ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(answers(), st.integers(0, 1000))
def test_gains_are_differences_and_the_opposite_the_other_way_round(given_answers: Answers, seed: int) -> None:
    actual, ours, theirs, classes = given_answers
    forth, back = compare(*given_answers, QUICK, seed), compare(actual, theirs, ours, classes, QUICK, seed)
    first, second = (scores_of(confusion(actual, predicted, classes)) for predicted in (ours, theirs))
    for name in NAMES:
        assert forth[f"{name}_gain"] == pytest.approx(float(first[name] - second[name]), abs=1e-6)
        assert back[f"{name}_gain"] == pytest.approx(-forth[f"{name}_gain"], abs=2e-6)
        assert back[f"{name}_gain_low"] == pytest.approx(-forth[f"{name}_gain_high"], abs=2e-6)
    assert (forth["fixed"] - forth["broken"]) / len(actual) == pytest.approx(forth["accuracy_gain"], abs=1e-6)
    assert (back["fixed"], back["broken"]) == (forth["broken"], forth["fixed"])
    assert back["mcnemar_p"] == forth["mcnemar_p"]
    itself = compare(actual, ours, ours, classes, QUICK, seed)
    assert {value for name, value in itself.items() if name != "mcnemar_p"} == {0.0}
    assert itself["mcnemar_p"] == 1.0


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_test_of_a_fair_coin(fixed: int, broken: int) -> None:
    tosses, fewer = fixed + broken, min(fixed, broken)
    one_side = sum(comb(tosses, heads) for heads in range(fewer + 1)) / 2**tosses
    ours = np.array([0] * (3 + fixed) + [1] * (broken + 2))  # of rows of class 0: three are right in both, two in none
    theirs = np.array([0] * 3 + [1] * fixed + [0] * broken + [1] * 2)
    p_value = compare(np.zeros_like(ours), ours, theirs, 2, QUICK, seed=1)["mcnemar_p"]
    assert p_value == pytest.approx(min(1.0, 2 * one_side), rel=6e-3)  # three digits are kept


@given(answers(), st.integers(0, 1000))
def test_gains_of_classes_and_of_accuracy_alone_are_those_among_all(given_answers: Answers, seed: int) -> None:
    actual, ours, theirs, classes = given_answers
    gains = class_gains(*given_answers, QUICK, seed)
    first, second = (
        f1_score(actual, predicted, labels=range(classes), average=None, zero_division=0)
        for predicted in (ours, theirs)
    )
    assert [gain["f1_gain"] for gain in gains] == pytest.approx(list(first - second), abs=1e-6)
    assert all(gain["f1_gain_low"] <= gain["f1_gain_high"] for gain in gains)
    among_all = compare(*given_answers, QUICK, seed)
    alone = compare(np.ones_like(actual), ours == actual, theirs == actual, 2, QUICK, seed)
    names = [f"accuracy_gain{end}" for end in ("", "_low", "_high")]
    assert [alone[name] for name in names] == [among_all[name] for name in names]
