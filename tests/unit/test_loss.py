"""The loss: what each kind of it is worth, and that a large batch in small parts is still one large batch."""

from functools import partial
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.strategies import step_loss
from stages.tasks.losses import focal_losses, for_classes, for_numbers, for_sets, label_weights
from tests.models import EXACT, KINDS, SEED, Splits, losses, settings, tokenized, weights, with_targets
from tests.models import trained as trained_like

LABELS = {"bad": 0, "good": 1, "odd": 2}
COUNTS = [6, 3, 1]
# In each row one label has the probability 1/2 and two have 1/4; the rows' own labels have 1/2, 1/4, 1/4 and 1/2.
LOGITS = torch.tensor([[log(2), 0.0, 0.0], [log(2), 0.0, 0.0], [0.0, log(2), 0.0], [log(2), 0.0, 0.0]])
TARGETS = torch.tensor([0, 1, 2, 0])
trained = partial(trained_like, like=EXACT)
HALF, QUARTER = log(2), log(4)  # what labels of such a probability cost


def loss_of(logits: torch.Tensor, targets: torch.Tensor | None, rows: int | None = None, **knobs: Any) -> torch.Tensor:
    params = FinetuneParams(**knobs)
    loss, _ = step_loss(None, params, for_classes(params, LABELS, COUNTS))
    return loss(SimpleNamespace(logits=logits), targets, rows and torch.tensor(rows))


def worth(**knobs: Any) -> float:
    return float(loss_of(LOGITS, TARGETS, **knobs))


@pytest.mark.parametrize(
    ("knobs", "rows"),  # what the four rows cost, whose divisor stays their number whatever they weigh
    [
        ({}, [HALF, QUARTER, QUARTER, HALF]),
        ({"loss": "focal", "focal_gamma": 0.0}, [HALF, QUARTER, QUARTER, HALF]),
        ({"loss": "focal"}, [0.5**2 * HALF, 0.75**2 * QUARTER, 0.75**2 * QUARTER, 0.5**2 * HALF]),
        ({"loss": "focal", "focal_gamma": 1.0}, [0.5 * HALF, 0.75 * QUARTER, 0.75 * QUARTER, 0.5 * HALF]),
        (
            {"label_smoothing_factor": 0.3},
            [0.7 * own + 0.1 * (HALF + 2 * QUARTER) for own in (HALF, QUARTER, QUARTER, HALF)],
        ),
    ],
)
@pytest.mark.parametrize("weights", [None, {"odd": 0.5, "bad": 3, "good": 1.0}])
def test_a_loss_is_the_weighted_mean_over_the_rows(
    knobs: dict[str, Any], rows: list[float], weights: dict[str, float] | None
) -> None:
    by_row = [3, 1, 0.5, 3] if weights else [1, 1, 1, 1]
    expected = sum(weight * row for weight, row in zip(by_row, rows, strict=True)) / 4
    assert worth(class_weights=weights or "none", **knobs) == pytest.approx(expected)


def test_balanced_weights_are_as_in_scikit_learn() -> None:
    balanced = FinetuneParams(class_weights="balanced")
    weights, without = (label_weights(balanced, list(LABELS), counts) for counts in (COUNTS, [6, 2, 0]))
    assert weights is not None and weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert without is not None and without[:2].tolist() == pytest.approx([8 / 12, 8 / 4])


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"bad": 1, "good": 2, "od": 1}, "names 'od', which the data does not have"),
        ({"bad": 1, "odd": 2}, "leaves out 'good'"),
    ],
)
def test_weights_for_other_labels_than_there_are_name_the_labels_there_are(given: dict[str, float], fault: str) -> None:
    params = FinetuneParams(class_weights=given)
    for refused in (lambda: for_classes(params, LABELS, COUNTS), lambda: for_sets(params, list(LABELS), [])):
        with pytest.raises(AttuneError) as caught:
            refused()
        assert caught.value.what == f"finetune.class_weights {fault}"
        assert "'bad', 'good', 'odd'" in caught.value.fix


# In the first row the labels have the probabilities 1/2 and 3/4, in the second 1/4 and 1/2.
SETS, HELD = torch.tensor([[0.0, log(3)], [-log(3), 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
TRAINED_ON = [[1.0, 0.0]] * 14 + [[0.0, 1.0]] + [[0.0, 0.0]] * 27  # 28 : 14 without and with the first label, 41 : 1
THIRD = log(4 / 3)


@pytest.mark.parametrize(
    ("knobs", "labels"),  # what the labels of both rows cost
    [
        ({}, [(HALF, QUARTER), (THIRD, HALF)]),
        ({"loss": "focal", "focal_gamma": 0.0}, [(HALF, QUARTER), (THIRD, HALF)]),
        ({"loss": "focal"}, [(0.5**2 * HALF, 0.75**2 * QUARTER), (0.25**2 * THIRD, 0.5**2 * HALF)]),
        ({"class_weights": "balanced"}, [(2 * HALF, QUARTER), (THIRD, 20 * HALF)]),
        (
            {"loss": "focal", "focal_gamma": 1.0, "class_weights": {"b": 1, "a": 3}},
            [(3 * 0.5 * HALF, 0.75 * QUARTER), (3 * 0.25 * THIRD, 0.5 * HALF)],
        ),
    ],
)
def test_a_set_costs_the_mean_over_its_labels(knobs: dict[str, Any], labels: list[tuple[float, float]]) -> None:
    loss = for_sets(FinetuneParams(**knobs), ["a", "b"], TRAINED_ON)
    assert loss(SETS, HELD).tolist() == pytest.approx([sum(row) / 2 for row in labels])
    with torch.no_grad():
        assert loss(SETS, HELD.int()).tolist() == pytest.approx([(HALF + QUARTER) / 2, (THIRD + HALF) / 2])


@pytest.mark.parametrize(
    ("knobs", "rows"),  # of an error of 1/2, and of one of 3 standard deviations
    [
        ({"loss": "mse"}, [0.25, 9.0]),
        ({"loss": "mae"}, [0.5, 3.0]),
        ({"loss": "huber"}, [0.125, 2.5]),
        ({"loss": "huber", "huber_delta": 2.0}, [0.125, 4.0]),
    ],
)
def test_a_number_costs_its_error(knobs: dict[str, Any], rows: list[float]) -> None:
    loss, given = for_numbers(FinetuneParams(**knobs)), (torch.tensor([[0.0], [3.0]]), torch.tensor([0.5, 0.0]))
    assert loss(*given).tolist() == rows
    with torch.no_grad():
        assert loss(*given).tolist() == [0.25, 9.0]


@pytest.mark.parametrize("knobs", [{"loss": "focal"}, {"label_smoothing_factor": 0.2}, {"class_weights": "balanced"}])
def test_validation_measures_plain_cross_entropy_whatever_is_trained(knobs: dict[str, Any]) -> None:
    assert worth(**knobs) != pytest.approx(worth())
    with torch.no_grad():
        assert worth(**knobs) == pytest.approx((HALF + QUARTER) / 2)


def test_a_row_that_stands_in_for_none_has_no_loss_and_a_gradient_of_zero() -> None:
    logits = torch.tensor([[8.0, 1.0, 0.0]], requires_grad=True)
    for knobs in ({}, {"loss": "focal", "class_weights": "balanced"}):
        loss = loss_of(logits, None, rows=4, **knobs)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss == 0 and not gradient.any()


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=5),
    st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0, 10.0]),
    st.integers(0, 1),
)
def test_focal_loss_and_its_gradient_are_numbers_however_certain_a_row_is(
    row: list[float], gamma: float, label: int
) -> None:
    of_sets = for_sets(FinetuneParams(loss="focal", focal_gamma=gamma), [], [])
    held = torch.full((1, len(row)), float(label))
    for of_rows in (lambda logits: focal_losses(logits, torch.tensor([label]), gamma), lambda it: of_sets(it, held)):
        logits = torch.tensor([row], requires_grad=True)
        loss = of_rows(logits)
        loss.sum().backward()
        assert logits.grad is not None
        assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all() and loss.item() >= 0


@pytest.fixture(scope="module")
def uneven(base: Path) -> Splits:
    """84 rows make batches of 32, 32 and 20: three large ones, or eleven of at most 8, the last of 4."""
    return {"train": tokenized(base, 84, 0, (0.6, 0.3, 0.1)), "validation": tokenized(base, 12, 1, (0.4, 0.3, 0.3))}


@pytest.mark.parametrize(
    ("kind", "knobs"),
    [
        ("classes", {"class_weights": {"bad": 0.2, "good": 1, "odd": 4}, "label_smoothing_factor": 0.1}),
        ("classes", {"loss": "focal", "class_weights": "balanced"}),
        ("sets", {"loss": "focal", "class_weights": "balanced"}),
        ("numbers", {"loss": "huber"}),
    ],
)
def test_four_batches_of_eight_are_one_of_thirty_two(
    base: Path, uneven: Splits, tmp_path: Path, kind: str, knobs: dict[str, Any]
) -> None:
    (task, space, _), uneven = KINDS[kind], with_targets(uneven, kind)
    plain = {"task": task, "space": space, "optim": "sgd", "learning_rate": 0.3, "group_by_length": False, **knobs}
    plain["metric_for_best_model"] = "loss"
    parts = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}
    whole, history = trained(base, uneven, tmp_path / "whole", **plain, per_device_train_batch_size=32)
    parted, log = trained(base, uneven, tmp_path / "parts", **plain, **parts)
    start = weights(task.build_model(base, space, settings(dropout=0.0), SEED))
    moved = max(float((value - start[name]).abs().max()) for name, value in weights(whole).items())
    assert moved > 5e-3  # something was learned that could differ
    for name, value in weights(whole).items():
        assert float((value - weights(parted)[name]).abs().max()) < 1e-6, name
    assert len(losses(history)) == 6
    assert losses(log) == pytest.approx(losses(history), abs=1e-6)
    assert losses(log, "grad_norm") == pytest.approx(losses(history, "grad_norm"), rel=1e-4)
