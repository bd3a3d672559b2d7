"""Calibration: a temperature from validation, and how far confidence is from accuracy."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from stages.common.params import EvaluateParams
from stages.common.params.evaluate import Calibration
from stages.evaluate.calibration import brier, calibration, expected_calibration_error, fit_temperature, reliability
from stages.evaluate.thresholds import decide
from stages.serving.decision import Decision

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
    logits, actual = honest(20_000, seed)
    assert fit_temperature(actual, softmax(logits * temperature, axis=1)) == pytest.approx(temperature, rel=0.06)


@given(st.integers(0, 1000), st.floats(0.4, 3.0))
def test_no_other_temperature_has_a_lower_log_loss(seed: int, off: float) -> None:
    logits, actual = honest(200, seed)
    raw = softmax(logits * 2, axis=1)

    def loss(temperature: float) -> float:
        return float(log_loss(actual, Decision(LABELS, temperature).calibrated(raw), labels=range(3)))

    assert loss(fit_temperature(actual, raw)) <= loss(off) + 1e-9


def test_a_model_without_errors_on_validation_is_not_made_surer() -> None:
    raw = np.array([[0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    assert fit_temperature(np.array([0, 1, 0]), raw) == 1.0


def test_probabilities_of_zero_and_one_have_a_temperature_too() -> None:
    raw = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert 1.0 < fit_temperature(np.array([0, 1, 0, 1]), raw) <= 20.0


def test_temperature_false_leaves_the_probabilities_alone() -> None:
    logits, actual = honest(300, 1)
    raw = softmax(logits * 3, axis=1)
    off, on = (
        decide(EvaluateParams(calibration=Calibration(temperature=wanted)), actual, raw, LABELS)[0]
        for wanted in (False, True)
    )
    assert off == Decision(LABELS)
    assert on.temperature == pytest.approx(3, rel=0.3)


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
    actual = np.array([0, 1, 0, 0, 0])
    diagram = reliability(actual, np.stack([of_first, 1 - of_first], axis=1), 2)
    assert diagram.rows() == [(1, 0.7, pytest.approx(2 / 3, abs=1e-6), 3), (2, 0.9, 1.0, 2)]
    assert expected_calibration_error(diagram) == pytest.approx((3 * (0.7 - 2 / 3) + 2 * 0.1) / 5, abs=1e-5)


@given(st.integers(0, 1000))
def test_the_brier_score_is_scikit_learns(seed: int) -> None:
    logits, actual = honest(40, seed)
    probabilities = softmax(logits, axis=1)
    theirs = brier_score_loss(np.eye(3, dtype=int)[actual], probabilities, scale_by_half=False)
    assert brier(actual, probabilities) == pytest.approx(float(theirs), abs=1e-6)


def test_the_report_holds_both_sides_of_the_temperature() -> None:
    logits, actual = honest(3000, 4)
    raw = softmax(logits * 2.5, axis=1)
    numbers, diagram = calibration(actual, raw, Decision(LABELS, 2.5), 10)
    assert numbers["ece"] < numbers["ece_before"] / 3
    assert numbers["log_loss"] < numbers["log_loss_before"]
    assert numbers["bins"] == 10
    for which, key in (("as trained", "ece_before"), ("calibrated", "ece")):
        assert expected_calibration_error(diagram.filter(pl.col("label") == which)) == numbers[key]
