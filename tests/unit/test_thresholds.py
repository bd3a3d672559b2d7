"""Thresholds: chosen on validation for what each label has to reach, never on a handful of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.params.evaluate import Thresholds
from stages.evaluate.thresholds import LEAST_ROWS, NEVER, choose, on_test, told
from stages.serving.decision import Decision

LABELS = ["no", "yes"]
PRECISION, RECALL = Thresholds(metric="precision", target=0.9), Thresholds(metric="recall", target=0.9)


def sure_of_yes(right: list[bool], confidence: list[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    chosen = choose(Thresholds(metric="precision", target=target), actual, probabilities, LABELS)
    for at, label in enumerate(LABELS):
        mine = probabilities.max(axis=1)[probabilities.argmax(axis=1) == at]
        good = [
            confidence
            for confidence in {0.0, *mine.tolist()}
            if (found := precision_at(confidence, actual, probabilities, at))[0] >= target and found[1] >= LEAST_ROWS
        ]
        if good:
            reached, rows = precision_at(chosen[label].threshold, actual, probabilities, at)
            assert reached >= target
            assert rows == precision_at(min(good), actual, probabilities, at)[1]
            assert (chosen[label].reached, chosen[label].rows) == (pytest.approx(reached, abs=1e-6), rows)
        else:
            assert chosen[label].threshold == NEVER
            assert chosen[label].problem


@given(answers(), st.floats(0.1, 1.0))
def test_the_highest_threshold_that_keeps_the_recall_is_chosen(
    given_answers: tuple[np.ndarray, np.ndarray], target: float
) -> None:
    actual, probabilities = given_answers
    chosen = choose(Thresholds(metric="recall", target=target), actual, probabilities, LABELS)
    for at, label in enumerate(LABELS):
        found = probabilities.max(axis=1)[(probabilities.argmax(axis=1) == at) & (actual == at)]
        rows, one = int((actual == at).sum()), chosen[label]
        if one.problem:
            assert one.threshold == 0.0
            continue
        assert (found >= one.threshold).sum() / rows >= target - 1e-9
        assert (found >= one.threshold + 2e-6).sum() / rows < target  # a little higher, and it is lost


def test_a_model_that_is_good_enough_answers_always() -> None:
    actual, probabilities = sure_of_yes([True] * 50, np.linspace(0.6, 0.9, 50))
    assert choose(PRECISION, actual, probabilities, LABELS)["yes"].threshold == 0.0


def test_a_handful_of_sure_rows_that_are_right_proves_nothing() -> None:
    right = [True] * (LEAST_ROWS // 2) + [False] * 60
    actual, probabilities = sure_of_yes(right, np.linspace(0.99, 0.6, len(right)))
    one = choose(PRECISION, actual, probabilities, LABELS)["yes"]
    assert one.threshold == NEVER
    assert "0.500" in str(one.problem)
    actual, probabilities = sure_of_yes([True] * LEAST_ROWS + [False] * 60, np.linspace(0.99, 0.6, LEAST_ROWS + 60))
    assert choose(Thresholds(target=1.0), actual, probabilities, LABELS)["yes"].rows == LEAST_ROWS


def test_a_label_whose_precision_cannot_be_shown_is_never_answered_and_one_hears_of_it() -> None:
    actual, probabilities = sure_of_yes([False, True] * 30, np.linspace(0.99, 0.6, 60))
    chosen = choose(PRECISION, actual, probabilities, LABELS)
    decision = Decision(LABELS, thresholds={label: one.threshold for label, one in chosen.items()})
    assert decision.abstains(np.array([[0.0, 1.0]])).all()
    report = on_test(chosen, decision, actual, probabilities)
    assert report["labels"]["yes"]["threshold"] is None
    assert report["labels"]["yes"]["precision"] is None
    assert (report["coverage"], report["accuracy"]) == (0.0, None)
    lines = told(report)
    assert "'yes'" in lines[1]
    assert "it is never answered" in lines[1]
    assert "0.0% of the test rows are answered, accuracy none" in lines[2]


def test_a_recall_out_of_reach_means_no_threshold_and_one_hears_of_it() -> None:
    actual, probabilities = np.ones(40, dtype=int), np.array([[0.9, 0.1]] * 20 + [[0.1, 0.9]] * 20)
    one = choose(RECALL, actual, probabilities, LABELS)["yes"]
    assert (one.threshold, one.reached, one.rows) == (0.0, 0.5, 40)
    report = on_test({"no": one, "yes": one}, Decision(LABELS), actual, probabilities)
    assert "it is always answered" in told(report)[0]


def test_thresholds_are_measured_on_rows_of_their_own() -> None:
    actual = np.array([0, 0, 1, 1, 1])
    of_yes = np.array([0.2, 0.8, 0.9, 0.6, 0.3])
    probabilities = np.stack([1 - of_yes, of_yes], axis=1)
    decision = Decision(LABELS, thresholds={"no": 0.75, "yes": 0.7})
    chosen = choose(PRECISION, *sure_of_yes([True] * 30, [0.9] * 30), LABELS)
    report = on_test(chosen, decision, actual, probabilities)
    assert (report["coverage"], report["accuracy"]) == (0.6, pytest.approx(2 / 3, abs=1e-6))
    yes = report["labels"]["yes"]
    assert (yes["precision"], yes["recall"], yes["coverage"]) == (0.5, pytest.approx(1 / 3, abs=1e-6), 0.666667)
    assert told(report)[-1] == "thresholds: 60.0% of the test rows are answered, accuracy 0.6667"
    assert told(None) == []
