"""Batches: every row once an epoch, little padding, and the same rows whoever asks."""

from itertools import chain
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.common.params import FinetuneParams
from stages.finetune.batches import LengthBatches

BATCHES = [[4, 1, 7, 3], [2, 5], [9, 0, 6, 8]]  # of epochs 0 and 1
LENGTHS = np.random.default_rng(0).geometric(0.04, 2000).clip(3, 128)


def batches(
    epoch: int = 0, lengths: np.ndarray = LENGTHS, size: int = 16, seed: int = 3, **knobs: Any
) -> list[list[int]]:
    made = LengthBatches(lengths, FinetuneParams(per_device_train_batch_size=size, **knobs), seed, 0, 1)
    made.set_epoch(epoch)
    return list(made)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=200),
    size=st.integers(1, 40),
    by_length=st.booleans(),
    budget=st.one_of(st.none(), st.integers(16, 300)),
)
def test_every_row_is_in_one_batch_within_the_budget(
    lengths: list[int], size: int, by_length: bool, budget: int | None
) -> None:
    budget = budget if by_length else None
    knobs = {"group_by_length": by_length, "max_tokens_per_batch": budget}
    epochs = [batches(epoch, np.array(lengths), size, **knobs) for epoch in range(3)]
    assert len({len(epoch) for epoch in epochs}) == 1
    for epoch in epochs:
        assert sorted(chain(*epoch)) == list(range(len(lengths)))
        assert all(0 < len(batch) <= size for batch in epoch)
        weights = [len(batch) * max(lengths[row] for row in batch) for batch in epoch if len(batch) > 1]
        assert not budget or max(weights, default=0) <= budget


def padding(made: list[list[int]]) -> float:
    return 1 - LENGTHS.sum() / sum(len(batch) * max(LENGTHS[row] for row in batch) for batch in made)


def test_batches_of_similar_lengths_hold_little_padding() -> None:
    assert padding(batches()) < 0.1 < 0.5 < padding(batches(group_by_length=False))
    assert padding(batches(max_tokens_per_batch=512)) < 0.1


def test_epochs_and_seeds_differ() -> None:
    different = [batches(epoch, seed=seed, max_tokens_per_batch=512) for epoch, seed in ((0, 3), (1, 3), (0, 4))]
    assert len({frozenset(map(frozenset, made)) for made in different}) == 3


def test_the_heaviest_batch_comes_first_and_the_rest_in_no_order_of_length() -> None:
    longest = [max(LENGTHS[row] for row in batch) for batch in batches()]
    weights = [len(batch) * top for batch, top in zip(batches(), longest, strict=True)]
    assert weights[0] == max(weights)
    assert abs(np.corrcoef(longest[1:], range(len(longest) - 1))[0, 1]) < 0.3


def test_batches_are_those_written_here() -> None:
    """So that a change of the order, which changes every trained model, is never made by accident."""
    lengths = np.array([5, 9, 2, 7, 9, 1, 4, 8, 3, 6])
    assert batches(0, lengths, 4, seed=1) == batches(1, lengths, 4, seed=1) == BATCHES
