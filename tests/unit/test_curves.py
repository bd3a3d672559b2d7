"""The curves of evaluation: ROC, and precision over recall."""

import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluate.scores import POINTS, precision_recall, roc

TWO = ["no", "yes"]


def certain(actual: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Probabilities [n x 2] that give the actual class the probability `sure`."""
    of_yes = np.where(actual == 1, sure, 1 - sure)
    return np.stack([1 - of_yes, of_yes], axis=1)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 400))
def test_curves_never_run_back(seed: int, rows: int) -> None:
    generator = np.random.default_rng(seed)
    actual = np.array([0, 1, *generator.integers(0, 2, rows)])
    probabilities = certain(actual, generator.random(rows + 2))
    curve, precisions = roc(actual, probabilities, TWO), precision_recall(actual, probabilities, TWO)
    x, y = curve["fpr"].to_numpy(), curve["tpr"].to_numpy()
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert len(curve) <= POINTS
    for values in (x, y, precisions["recall"].to_numpy()):
        assert (np.diff(values) >= 0).all()
    assert (precisions["recall"][0], precisions["recall"][-1]) == (0, 1)
    assert precisions["precision"].is_between(0, 1).all()


def test_of_equal_recall_the_better_precision_comes_first() -> None:
    actual, of_yes = np.array([1, 0, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    curve = precision_recall(actual, np.stack([1 - of_yes, of_yes], axis=1), TWO)
    assert curve["recall"].to_list() == [0.0, 0.5, 0.5, 0.5, 1.0]
    assert curve["precision"].to_list() == pytest.approx([1.0, 1.0, 0.5, 1 / 3, 0.5], abs=1e-6)


@pytest.mark.parametrize("curve", [roc, precision_recall])
def test_two_labels_have_one_curve_and_more_have_one_each(curve: object) -> None:
    generator = np.random.default_rng(0)
    actual = generator.integers(0, 2, 60)
    assert curve(actual, certain(actual, generator.random(60)), TWO)["label"].unique().to_list() == ["yes"]  # type: ignore[operator]
    labels = ["a", "b", "c"]
    found = curve(generator.integers(0, 3, 60), generator.dirichlet([1, 1, 1], 60), labels)  # type: ignore[operator]
    assert found["label"].unique(maintain_order=True).to_list() == labels


@pytest.mark.parametrize("curve", [roc, precision_recall])
def test_a_label_without_test_rows_has_no_curve(curve: object) -> None:
    actual = np.array([0, 1, 0, 1])
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = curve(actual, probabilities, ["a", "b", "c"])  # type: ignore[operator]
        alone = curve(np.array([0, 0]), probabilities[:2, :2], TWO)  # type: ignore[operator]
    assert found["label"].unique(maintain_order=True).to_list() == ["a", "b"]
    assert not np.isnan(found.select(pl.exclude("label")).to_numpy()).any()
    assert alone.columns == found.columns
    assert alone.is_empty()
