"""Scores are scikit-learn's, intervals mean what they say, and gains are those of the same draws."""

import tracemalloc
from math import comb

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from stages.common.params.evaluate import Bootstrap
from stages.common.params.tasks import Score, task_spec
from stages.tasks import bootstrap
from stages.tasks.bootstrap import gains, mcnemar, scores_of, scores_with_intervals
from stages.tasks.evidence import Evidence
from stages.tasks.text_classification import TASK

QUICK = Bootstrap(resamples=100)
NAMES = ["accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"]

Answers = tuple[np.ndarray, np.ndarray, np.ndarray]


def evidence(actual: np.ndarray, predicted: np.ndarray) -> Evidence:
    """Of class numbers, as the task has it of labels."""
    rows, answers = ({name: values.astype(str)} for name, values in (("label", actual), ("prediction", predicted)))
    return TASK.evidence(pl.DataFrame(rows), pl.DataFrame(answers))


def compare(actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, params: Bootstrap, seed: int) -> dict[str, float]:
    sides = evidence(actual, ours), evidence(actual, theirs)
    gained = gains(*sides, task_spec(TASK.name).scores, params, seed)
    return {**gained, **mcnemar(ours == actual, theirs == actual)}


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    """Actual class numbers and those that two models predict; classes may be absent from each of them."""
    classes, rows = draw(st.integers(2, 6)), draw(st.integers(1, 60))
    numbers = st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)
    return np.array(draw(numbers)), np.array(draw(numbers)), np.array(draw(numbers))


def coin(rows: int, seed: int, *chances: float) -> list[np.ndarray]:
    """Two classes, and the predictions of models that are right with these chances."""
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, 2, rows)
    return [actual, *(np.where(generator.random(rows) < chance, actual, 1 - actual) for chance in chances)]


@given(answers())
def test_scores_are_scikit_learns(given_answers: Answers) -> None:
    actual, predicted, _ = given_answers
    ours = scores_of(evidence(actual, predicted))
    options = {"zero_division": 0}
    theirs = {
        "accuracy": accuracy_score(actual, predicted),
        "macro_f1": f1_score(actual, predicted, average="macro", **options),
        "weighted_f1": f1_score(actual, predicted, average="weighted", **options),
        "macro_precision": precision_score(actual, predicted, average="macro", **options),
        "macro_recall": recall_score(actual, predicted, average="macro", **options),
    }
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_intervals_depend_on_the_seed_alone_and_not_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = coin(37, 0, 0.8)
    first, other = (scores_with_intervals(evidence(*rows), Bootstrap(resamples=150), seed) for seed in (7, 8))
    assert first != other
    assert sorted(first) == sorted(f"{name}{bound}" for name in NAMES for bound in ("", "_low", "_high"))
    assert all(first[f"{name}_low"] <= first[name] <= first[f"{name}_high"] for name in NAMES)
    assert [first[name] for name in NAMES] == [other[name] for name in NAMES]
    for numbers in (1, 37 * 4, 1000):
        monkeypatch.setattr(bootstrap, "CHUNK", numbers)
        assert scores_with_intervals(evidence(*rows), Bootstrap(resamples=150), 7) == first


def test_hundreds_of_labels_fit_into_memory() -> None:
    """Statistics are sparse, and sums of draws are held for some of them at a time."""
    actual = np.random.default_rng(0).integers(0, 600, 1000)
    tracemalloc.start()
    try:
        scores_with_intervals(evidence(actual, actual), QUICK, seed=7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150_000_000


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    trials, truth, params = 300, 0.75, Bootstrap(resamples=200, confidence=0.9)
    reports = [scores_with_intervals(evidence(*coin(200, trial, truth)), params, trial) for trial in range(trials)]
    covered = sum(report["accuracy_low"] <= truth <= report["accuracy_high"] for report in reports)
    assert 0.84 <= covered / trials <= 0.95  # 0.9, give or take three standard errors (0.017 each)


# ── two models ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(answers(), st.integers(0, 1000))
def test_gains_are_differences_and_the_opposite_the_other_way_round(given_answers: Answers, seed: int) -> None:
    actual, ours, theirs = given_answers
    forth, back = compare(*given_answers, QUICK, seed), compare(actual, theirs, ours, QUICK, seed)
    first, second = (scores_of(evidence(actual, predicted)) for predicted in (ours, theirs))
    for name in NAMES:
        assert forth[f"{name}_gain"] == pytest.approx(first[name] - second[name], abs=2e-6)
        assert back[f"{name}_gain"] == pytest.approx(-forth[f"{name}_gain"], abs=2e-6)
        assert back[f"{name}_gain_low"] == pytest.approx(-forth[f"{name}_gain_high"], abs=2e-6)
    assert (forth["fixed"] - forth["broken"]) / len(actual) == pytest.approx(forth["accuracy_gain"], abs=1e-6)
    assert (back["fixed"], back["broken"]) == (forth["broken"], forth["fixed"])
    assert back["mcnemar_p"] == forth["mcnemar_p"]
    itself = compare(actual, ours, ours, QUICK, seed)
    assert {value for name, value in itself.items() if name != "mcnemar_p"} == {0.0}
    assert itself["mcnemar_p"] == 1.0


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_test_of_a_fair_coin(fixed: int, broken: int) -> None:
    tosses, fewer = fixed + broken, min(fixed, broken)
    one_side = sum(comb(tosses, heads) for heads in range(fewer + 1)) / 2**tosses
    ours = np.array([0] * (3 + fixed) + [1] * (broken + 2))  # of rows of class 0: three are right in both, two in none
    theirs = np.array([0] * 3 + [1] * fixed + [0] * broken + [1] * 2)
    p_value = mcnemar(ours == 0, theirs == 0)["mcnemar_p"]
    assert p_value == pytest.approx(min(1.0, 2 * one_side), rel=6e-3)  # three digits are kept


@given(answers(), st.integers(0, 1000))
def test_gains_of_labels_and_of_one_score_alone_are_those_among_all(given_answers: Answers, seed: int) -> None:
    actual, ours, theirs = given_answers
    spec, names = task_spec(TASK.name).scores, sorted({*actual.astype(str), *ours.astype(str), *theirs.astype(str)})
    rows = pl.DataFrame({"label": actual.astype(str)})
    sides = [TASK.evidence(rows, pl.DataFrame({"prediction": some.astype(str)}), names) for some in (ours, theirs)]
    of_labels = [Evidence(side.statistics, lambda sums: TASK.part_scores(sums, names)) for side in sides]
    gained = gains(*of_labels, spec, QUICK, seed)
    first, second = (
        f1_score(actual.astype(str), predicted.astype(str), labels=names, average=None, zero_division=0)
        for predicted in (ours, theirs)
    )
    assert [gained[f"{name}_gain"] for name in names] == pytest.approx(list(first - second), abs=1e-6)
    among_all, every = compare(*given_answers, QUICK, seed), np.arange(len(actual))
    alone = gains(*(side.of_rows(every, "accuracy") for side in sides), spec, QUICK, seed)
    assert alone == {name: among_all[name] for name in alone}
    assert sorted(alone) == sorted(f"accuracy_gain{end}" for end in ("", "_low", "_high"))


def test_less_of_an_error_is_a_gain() -> None:
    errors = [
        Evidence(np.array([[1.0, size]] * 9), lambda sums: {"mae": sums[..., 1] / sums[..., 0]}) for size in (1, 3)
    ]
    gained = gains(*errors, [Score("mae", "MAE", greater_is_better=False)], QUICK, seed=1)
    assert gained == {"mae_gain": 2.0, "mae_gain_low": 2.0, "mae_gain_high": 2.0}
