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
from stages.finetune.batches import IGNORED
from stages.finetune.loss import build_loss, focal_losses, label_weights
from stages.tasks.text_classification import build_model
from tests.models import EXACT, SEED, TELLING, Splits, losses, tokenized, weights
from tests.models import trained as trained_like

LABELS = {"bad": 0, "good": 1, "odd": 2}
COUNTS = [6, 3, 1]
# In each row one label has the probability 1/2 and two have 1/4; the rows' own labels have 1/2, 1/4, 1/4 and 1/2.
LOGITS = torch.tensor([[log(2), 0.0, 0.0], [log(2), 0.0, 0.0], [0.0, log(2), 0.0], [log(2), 0.0, 0.0]])
TARGETS = torch.tensor([0, 1, 2, 0])
trained = partial(trained_like, like=EXACT)
HALF, QUARTER = log(2), log(4)  # what labels of such a probability cost


def loss_of(logits: torch.Tensor, targets: torch.Tensor, rows: int | None = None, **knobs: Any) -> torch.Tensor:
    loss = build_loss(FinetuneParams(**knobs), LABELS, COUNTS)
    return loss(SimpleNamespace(logits=logits), targets, num_items_in_batch=rows and torch.tensor(rows))


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
    weights, without = label_weights(balanced, LABELS, COUNTS), label_weights(balanced, LABELS, [6, 2, 0])
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
    with pytest.raises(AttuneError) as caught:
        build_loss(FinetuneParams(class_weights=given), LABELS, COUNTS)
    assert caught.value.what == f"finetune.class_weights {fault}"
    assert "'bad', 'good', 'odd'" in caught.value.fix


@pytest.mark.parametrize("knobs", [{"loss": "focal"}, {"label_smoothing_factor": 0.2}, {"class_weights": "balanced"}])
def test_validation_measures_plain_cross_entropy_whatever_is_trained(knobs: dict[str, Any]) -> None:
    assert worth(**knobs) != pytest.approx(worth())
    with torch.no_grad():
        assert worth(**knobs) == pytest.approx((HALF + QUARTER) / 2)


def test_a_row_that_stands_in_for_none_has_no_loss_and_a_gradient_of_zero() -> None:
    logits = torch.tensor([[8.0, 1.0, 0.0]], requires_grad=True)
    for knobs in ({}, {"loss": "focal", "class_weights": "balanced"}):
        loss = loss_of(logits, torch.tensor([IGNORED]), rows=4, **knobs)
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
    logits = torch.tensor([row], requires_grad=True)
    loss = focal_losses(logits, torch.tensor([label]), gamma)
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all() and loss.item() >= 0


@pytest.fixture(scope="module")
def uneven(base: Path) -> Splits:
    """84 rows make batches of 32, 32 and 20: three large ones, or eleven of at most 8, the last of 4."""
    return {"train": tokenized(base, 84, 0, (0.6, 0.3, 0.1)), "validation": tokenized(base, 12, 1, (0.4, 0.3, 0.3))}


@pytest.mark.parametrize(
    "knobs",
    [
        {"class_weights": {"bad": 0.2, "good": 1, "odd": 4}, "label_smoothing_factor": 0.1},
        {"loss": "focal", "class_weights": "balanced"},
    ],
)
def test_four_batches_of_eight_are_one_of_thirty_two(
    base: Path, uneven: Splits, tmp_path: Path, knobs: dict[str, Any]
) -> None:
    plain = {"optim": "sgd", "learning_rate": 0.3, "group_by_length": False, **knobs}
    parts = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}
    whole, history = trained(base, uneven, tmp_path / "whole", **plain, per_device_train_batch_size=32)
    parted, log = trained(base, uneven, tmp_path / "parts", **plain, **parts)
    start = weights(build_model(base, list(TELLING), 0.0, SEED))
    moved = max(float((value - start[name]).abs().max()) for name, value in weights(whole).items())
    assert moved > 5e-3  # something was learned that could differ
    for name, value in weights(whole).items():
        assert float((value - weights(parted)[name]).abs().max()) < 1e-6, name
    assert len(losses(history)) == 6
    assert losses(log) == pytest.approx(losses(history), abs=1e-6)
    assert losses(log, "grad_norm") == pytest.approx(losses(history, "grad_norm"), rel=1e-4)
