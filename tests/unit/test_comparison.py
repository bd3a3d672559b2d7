"""Two models on the same rows: gains, their intervals, and McNemar's test."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import f1_score

from stages.common.params.evaluate import Bootstrap
from stages.evaluate.scores import beside
from stages.tasks.comparison import accuracy_gain, class_gains, compare
from stages.tasks.scores import confusion, scores_of

QUICK = Bootstrap(resamples=100)
NAMES = ["accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"]

Answers = tuple[np.ndarray, np.ndarray, np.ndarray, int]


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    """Actual class numbers and those that two models predict."""
    classes, rows = draw(st.integers(2, 5)), draw(st.integers(1, 50))
    numbers = st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)
    return np.array(draw(numbers)), np.array(draw(numbers)), np.array(draw(numbers)), classes


def two_models(rows: int, ours: float, theirs: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes, each model right with its own chance."""
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, 2, rows)
    first, second = (np.where(generator.random(rows) < right, actual, 1 - actual) for right in (ours, theirs))
    return actual, first, second


def of_pairs(both: int, fixed: int, broken: int, neither: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of class 0 that both models, ours alone, theirs alone, or neither gets right."""
    ours = np.array([0] * (both + fixed) + [1] * (broken + neither))
    theirs = np.array([0] * both + [1] * fixed + [0] * broken + [1] * neither)
    return np.zeros(len(ours), dtype=int), ours, theirs


@given(answers())
def test_a_model_gains_nothing_over_itself(given_answers: Answers) -> None:
    actual, ours, _, classes = given_answers
    found = compare(actual, ours, ours, classes, QUICK, seed=1)
    assert {value for name, value in found.items() if "_gain" in name} == {0.0}
    assert (found["fixed"], found["broken"], found["mcnemar_p"]) == (0, 0, 1.0)


@given(answers(), st.integers(0, 1000))
def test_the_two_models_changed_round_give_the_opposite(given_answers: Answers, seed: int) -> None:
    actual, ours, theirs, classes = given_answers
    forth = compare(actual, ours, theirs, classes, QUICK, seed)
    back = compare(actual, theirs, ours, classes, QUICK, seed)
    for name in NAMES:
        assert back[f"{name}_gain"] == pytest.approx(-forth[f"{name}_gain"], abs=2e-6)
        assert back[f"{name}_gain_low"] == pytest.approx(-forth[f"{name}_gain_high"], abs=2e-6)
    assert (back["fixed"], back["broken"]) == (forth["broken"], forth["fixed"])
    assert back["mcnemar_p"] == forth["mcnemar_p"]


@given(answers())
def test_gains_are_the_difference_of_the_scores_and_rows_add_up(given_answers: Answers) -> None:
    actual, ours, theirs, classes = given_answers
    found = compare(actual, ours, theirs, classes, QUICK, seed=1)
    first, second = (scores_of(confusion(actual, predicted, classes)) for predicted in (ours, theirs))
    for name in NAMES:
        assert found[f"{name}_gain"] == pytest.approx(float(first[name] - second[name]), abs=1e-6)
        assert found[f"{name}_gain_low"] <= found[f"{name}_gain_high"]
    assert (found["fixed"] - found["broken"]) / len(actual) == pytest.approx(found["accuracy_gain"], abs=1e-6)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_test_of_a_fair_coin(fixed: int, broken: int) -> None:
    tosses, fewer = fixed + broken, min(fixed, broken)
    one_side = sum(comb(tosses, heads) for heads in range(fewer + 1)) / 2**tosses
    found = compare(*of_pairs(3, fixed, broken, 2), 2, QUICK, seed=1)
    assert found["mcnemar_p"] == pytest.approx(min(1.0, 2 * one_side), rel=6e-3)  # three digits are kept


def test_the_interval_is_as_wide_as_the_normal_approximation_says() -> None:
    actual, ours, theirs = two_models(2000, 0.85, 0.80, seed=4)
    found = compare(actual, ours, theirs, 2, Bootstrap(resamples=4000), seed=7)
    difference = (ours == actual).astype(int) - (theirs == actual)
    width = 2 * norm.ppf(0.975) * difference.std() / sqrt(len(actual))
    assert found["accuracy_gain_high"] - found["accuracy_gain_low"] == pytest.approx(width, rel=0.06)


def test_equal_models_seldom_seem_different() -> None:
    trials = 200
    found = [compare(*two_models(300, 0.8, 0.8, seed), 2, Bootstrap(resamples=200), seed) for seed in range(trials)]
    outside = sum(not one["accuracy_gain_low"] <= 0 <= one["accuracy_gain_high"] for one in found)
    assert 0.01 <= outside / trials <= 0.10  # 0.05, give or take three standard errors (0.015 each)
    assert sum(one["mcnemar_p"] < 0.05 for one in found) / trials <= 0.08  # the exact test is on the careful side


def test_a_baseline_is_reported_with_its_scores_and_with_what_is_gained_over_it() -> None:
    actual, ours, theirs = two_models(200, 0.9, 0.6, seed=1)
    found = beside(actual, ours, theirs, 2, QUICK, seed=1)
    scores = [f"{name}{end}" for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high")]
    gains = [f"{name}_gain{end}" for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high")]
    assert sorted(found) == sorted([*scores, *gains, "fixed", "broken", "mcnemar_p"])
    assert found["accuracy"] == pytest.approx(float((theirs == actual).mean()), abs=1e-6)
    assert found["accuracy_gain"] == pytest.approx(float((ours == actual).mean() - (theirs == actual).mean()), abs=1e-6)


@given(answers())
def test_the_gain_of_each_class_is_that_of_its_f1(given_answers: Answers) -> None:
    actual, ours, theirs, classes = given_answers
    found = class_gains(actual, ours, theirs, classes, QUICK, seed=1)
    first, second = (
        f1_score(actual, said, labels=range(classes), average=None, zero_division=0) for said in (ours, theirs)
    )
    assert [one["f1_gain"] for one in found] == pytest.approx(list(first - second), abs=1e-6)
    assert all(one["f1_gain_low"] <= one["f1_gain_high"] for one in found)


@given(answers(), st.integers(0, 1000))
def test_the_gain_in_accuracy_alone_is_the_one_among_all_scores(given_answers: Answers, seed: int) -> None:
    actual, ours, theirs, classes = given_answers
    whole = compare(actual, ours, theirs, classes, QUICK, seed)
    alone = accuracy_gain(actual, ours, theirs, QUICK, seed)
    assert alone == {name: whole[name] for name in ("accuracy_gain", "accuracy_gain_low", "accuracy_gain_high")}
