"""A temperature and thresholds from validation: chosen for what they have to reach, never on a handful of rows."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from stages.common.params import EvaluateParams
from stages.common.params.evaluate import Calibration, Thresholds
from stages.tasks.calibration import (
    LEAST_ROWS,
    NEVER,
    calibration_report,
    choose,
    expected_calibration_error,
    fit_decision,
    fit_temperature,
    reliability,
    threshold_messages,
    threshold_report,
)
from tests.unit.small_decisions import label_decision

LABELS = ["a", "b", "c"]


def honest(rows: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n x k] and labels drawn with just the chances that they give."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (rows, classes))
    chances = softmax(logits, axis=1)
    return logits, (chances.cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1)


@settings(max_examples=10)
@given(st.integers(0, 1000), st.floats(0.3, 4.0))
def test_the_temperature_that_spoiled_the_probabilities_is_found(seed: int, temperature: float) -> None:
    logits, actual = honest(10_000, seed)
    assert fit_temperature(actual, softmax(logits * temperature, axis=1)) == pytest.approx(temperature, rel=0.08)


def test_a_model_without_errors_is_not_made_more_confident_and_certainty_has_a_temperature() -> None:
    raw = np.array([[0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    assert fit_temperature(np.array([0, 1, 0]), raw) == 1.0
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert 1.0 < fit_temperature(np.array([0, 1, 0, 1]), certain) <= 20.0


@given(st.integers(1, 200), st.integers(2, 30), st.integers(0, 1000))
def test_bins_of_confidence_hold_equally_many_rows(rows: int, bins: int, seed: int) -> None:
    logits, actual = honest(rows, seed)
    diagram = reliability(actual, softmax(logits, axis=1), bins)
    assert diagram["rows"].sum() == rows
    assert diagram["rows"].max() - diagram["rows"].min() <= 1
    assert diagram.height == min(bins, rows)
    assert diagram["confidence"].is_sorted()


def test_the_calibration_error_is_the_mean_gap_weighted_by_rows() -> None:
    of_first = np.array([0.6, 0.6, 0.9, 0.9, 0.9])
    diagram = reliability(np.array([0, 1, 0, 0, 0]), np.stack([of_first, 1 - of_first], axis=1), 2)
    assert diagram.rows() == [(1, 0.7, pytest.approx(2 / 3, abs=1e-6), 3), (2, 0.9, 1.0, 2)]
    assert expected_calibration_error(diagram) == pytest.approx((3 * (0.7 - 2 / 3) + 2 * 0.1) / 5, abs=1e-5)


def test_the_report_holds_both_sides_of_the_temperature_and_scikit_learns_numbers() -> None:
    logits, actual = honest(3000, 4)
    raw, decision = softmax(logits * 2.5, axis=1), label_decision(LABELS, 2.5)
    numbers, diagram = calibration_report(actual, raw, decision.calibrated(raw), 10)
    assert numbers["ece"] < numbers["ece_before"] / 3
    assert numbers["log_loss"] < numbers["log_loss_before"]
    assert numbers["bins"] == 10
    for label, key in (("as trained", "ece_before"), ("calibrated", "ece")):
        assert expected_calibration_error(diagram.filter(pl.col("label") == label)) == numbers[key]
    calibrated = decision.calibrated(raw)
    brier = brier_score_loss(np.eye(3, dtype=int)[actual], calibrated, scale_by_half=False)
    assert numbers["brier"] == pytest.approx(float(brier), abs=1e-6)
    assert numbers["log_loss"] == pytest.approx(log_loss(actual, calibrated), abs=1e-6)


TWO = ["no", "yes"]
PRECISION, RECALL = Thresholds(metric="precision", target=0.9), Thresholds(metric="recall", target=0.9)


def yes_rows(right: list[bool], confidence: list[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are all predicted `yes`: class numbers and probabilities."""
    of_yes = np.array(confidence, dtype=float)
    return np.array(right, dtype=int), np.stack([1 - of_yes, of_yes], axis=1)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers of 40 to 300 rows, and probabilities that know something of them."""
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    actual = generator.integers(0, 2, draw(st.integers(40, 300)))
    of_yes = 1 / (1 + np.exp(-generator.normal((2 * actual - 1) * draw(st.floats(0, 3)), 1.5)))
    of_yes = of_yes.round(draw(st.sampled_from([2, 9])))  # with and without rows of equal confidence
    return actual, np.stack([1 - of_yes, of_yes], axis=1)


def precision_at(threshold: float, actual: np.ndarray, probabilities: np.ndarray, label: int) -> tuple[float, int]:
    answered = (probabilities.argmax(axis=1) == label) & (probabilities.max(axis=1) >= threshold)
    return float((actual[answered] == label).mean()) if answered.any() else 0.0, int(answered.sum())


@given(answers(), st.floats(0.5, 1.0))
def test_the_least_threshold_that_reaches_the_precision_is_chosen(
    given_answers: tuple[np.ndarray, np.ndarray], target: float
) -> None:
    actual, probabilities = given_answers
    chosen = choose(Thresholds(metric="precision", target=target), actual, probabilities, TWO)
    for number, choice in enumerate(chosen.values()):
        confidences = {0.0, *probabilities.max(axis=1)[probabilities.argmax(axis=1) == number].tolist()}
        tried = {confidence: precision_at(confidence, actual, probabilities, number) for confidence in confidences}
        good = [at for at, (precision, rows) in tried.items() if precision >= target and rows >= LEAST_ROWS]
        if good:
            reached, rows = precision_at(choice.threshold, actual, probabilities, number)
            assert reached >= target
            assert rows == tried[min(good)][1]
            assert (choice.reached, choice.rows) == (pytest.approx(reached, abs=1e-6), rows)
        else:
            assert choice.threshold == NEVER
            assert choice.problem


@given(answers(), st.floats(0.1, 1.0))
def test_the_highest_threshold_that_keeps_the_recall_is_chosen(
    given_answers: tuple[np.ndarray, np.ndarray], target: float
) -> None:
    actual, probabilities = given_answers
    chosen = choose(Thresholds(metric="recall", target=target), actual, probabilities, TWO)
    for number, choice in enumerate(chosen.values()):
        hits = probabilities.max(axis=1)[(probabilities.argmax(axis=1) == number) & (actual == number)]
        rows = int((actual == number).sum())
        if choice.problem:
            assert choice.threshold == 0.0
            continue
        assert (hits >= choice.threshold).sum() / rows >= target - 1e-9
        assert (hits >= choice.threshold + 2e-6).sum() / rows < target  # a little higher, and it is lost


def test_a_good_model_answers_always_and_a_handful_of_right_rows_proves_nothing() -> None:
    assert choose(PRECISION, *yes_rows([True] * 50, np.linspace(0.6, 0.9, 50)), TWO)["yes"].threshold == 0.0
    few = LEAST_ROWS // 2
    choice = choose(PRECISION, *yes_rows([True] * few + [False] * 60, np.linspace(0.99, 0.6, few + 60)), TWO)["yes"]
    assert choice.threshold == NEVER
    assert "0.500" in str(choice.problem)
    enough = yes_rows([True] * LEAST_ROWS + [False] * 60, np.linspace(0.99, 0.6, LEAST_ROWS + 60))
    assert choose(Thresholds(target=1.0), *enough, TWO)["yes"].rows == LEAST_ROWS


def test_a_label_whose_precision_cannot_be_shown_is_never_answered_and_the_user_is_warned() -> None:
    actual, probabilities = yes_rows([False, True] * 30, np.linspace(0.99, 0.6, 60))
    params = EvaluateParams(thresholds=PRECISION, calibration=Calibration(temperature=False))
    decision, chosen = fit_decision(params, actual, probabilities, label_decision(TWO))
    assert decision.abstains(np.array([[0.0, 1.0]])).all()
    report = threshold_report(chosen, decision, actual, probabilities)
    assert report
    assert (report["labels"]["yes"]["threshold"], report["labels"]["yes"]["precision"]) == (None, None)
    assert (report["coverage"], report["right"]) == (0.0, None)
    messages = threshold_messages(report)
    assert "'yes'" in messages[1]
    assert "it is never answered" in messages[1]
    assert "0.0% of the test rows are answered, accuracy none" in messages[2]


def test_a_recall_out_of_reach_means_no_threshold_and_the_user_is_warned() -> None:
    actual, probabilities = np.ones(40, dtype=int), np.array([[0.9, 0.1]] * 20 + [[0.1, 0.9]] * 20)
    choice = choose(RECALL, actual, probabilities, TWO)["yes"]
    assert (choice.threshold, choice.reached, choice.rows) == (0.0, 0.5, 40)
    report = threshold_report({"no": choice, "yes": choice}, label_decision(TWO), actual, probabilities)
    assert "it is always answered" in threshold_messages(report)[0]


def test_thresholds_are_measured_on_rows_of_their_own() -> None:
    of_yes = np.array([0.2, 0.8, 0.9, 0.6, 0.3])
    decision = label_decision(TWO, thresholds={"no": 0.75, "yes": 0.7})
    chosen = choose(PRECISION, *yes_rows([True] * 30, [0.9] * 30), TWO)
    report = threshold_report(chosen, decision, np.array([0, 0, 1, 1, 1]), np.stack([1 - of_yes, of_yes], axis=1))
    assert report
    assert (report["coverage"], report["right"]) == (0.6, pytest.approx(2 / 3, abs=1e-6))
    yes = report["labels"]["yes"]
    assert (yes["precision"], yes["recall"], yes["coverage"]) == (0.5, pytest.approx(1 / 3, abs=1e-6), 0.666667)
    assert threshold_messages(report)[-1] == "thresholds: 60.0% of the test rows are answered, accuracy 0.6667"
    assert threshold_messages(threshold_report({}, decision, of_yes, of_yes)) == []
