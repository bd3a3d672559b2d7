"""The schedules of the learning rate: their values, step by step."""

import math
from typing import Any

import pytest
import torch

from stages.common.params import FinetuneParams
from stages.finetune.optimizers import build_schedule


def rates_of(steps: int, **knobs: Any) -> list[float]:
    """The learning rate of each step, as the trainer takes them."""
    params = FinetuneParams(**{"learning_rate": 1.0, "warmup_ratio": 0.0, **knobs})
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=params.learning_rate)
    schedule = build_schedule(optimizer, params, steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, [1, 0.75, 0.5, 0.25]),
        ({"lr_final_ratio": 0.2}, [1, 0.8, 0.6, 0.4]),
        (
            {"lr_scheduler_type": "cosine", "lr_final_ratio": 0.2},
            [1, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2 + 0.4 * (1 - math.sqrt(0.5))],
        ),
        ({"lr_scheduler_type": "exponential", "lr_final_ratio": 0.0001}, [1, 0.1, 0.01, 0.001]),
        ({"lr_scheduler_type": "constant"}, [1, 1, 1, 1]),
        ({"warmup_ratio": 0.5, "lr_scheduler_type": "constant"}, [0, 0.5, 1, 1]),
        ({"warmup_ratio": 0.3}, [0, 0.5, 1, 0.5]),  # 1.2 steps are two
        ({"warmup_ratio": 1.0}, [0, 0.25, 0.5, 0.75]),
    ],
)
def test_four_steps(knobs: dict[str, Any], expected: list[float]) -> None:
    assert rates_of(4, **knobs) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.0, 0.06, 1.0])
def test_a_training_of_one_step_takes_it_at_the_peak(warmup: float) -> None:
    assert rates_of(1, warmup_ratio=warmup) == [1.0]
