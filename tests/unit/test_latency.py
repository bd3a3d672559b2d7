"""Measuring how long models take: in turns, over the same texts, without what only warms up."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages.serving import latency
from stages.serving.latency import BLOCK, SETTLING, latencies

TEXTS = ["a", "b c", "d e f"]


clock = SimpleNamespace(now=0.0)  # time passes only when somebody sleeps


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock.now))


class Sleeper:
    """A classifier that takes its time, and keeps what it was asked; its tokens are words."""

    def __init__(self, seconds: float, asked: list[Any]) -> None:
        self.seconds, self.asked, self.tokens = seconds, asked, self

    def encode(self, texts: list[str], pairs: list[str] | None) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * len(text.split()) for text in [*texts, *(pairs or [])]]}

    def probabilities(self, texts: list[str], pairs: list[str] | None, batch_size: int) -> np.ndarray:
        assert batch_size == len(texts)
        self.asked.append((self, tuple(texts), pairs))
        slow = len(self.asked) <= SETTLING  # as a first call is
        clock.now += 1.0 if slow else self.seconds
        return np.zeros((len(texts), 2))


def measure(*seconds: float, **options: Any) -> tuple[list[Any], dict[str, Any]]:
    asked: list[Any] = []
    sleepers = {str(at): Sleeper(took, asked) for at, took in enumerate(seconds)}
    return asked, latencies(sleepers, **{"texts": TEXTS, "batch_size": 1, "calls": 20, **options})  # type: ignore[arg-type]


def test_each_model_has_its_own_times_and_warming_up_is_none_of_them() -> None:
    _, found = measure(0.002, 0.006)
    assert (found["0"].p50_ms, found["0"].p95_ms) == (pytest.approx(2), pytest.approx(2))
    assert (found["1"].p50_ms, found["1"].p95_ms) == (pytest.approx(6), pytest.approx(6))


def test_models_take_turns_over_the_same_texts() -> None:
    asked, _ = measure(0.001, 0.002)
    stretch = SETTLING + BLOCK
    turns = [asked[at : at + stretch] for at in range(0, len(asked), stretch)]
    models = [{call[0].seconds for call in turn} for turn in turns]
    assert models == [{0.001}, {0.002}, {0.001}, {0.002}]
    assert [call[1] for call in turns[0]] == [call[1] for call in turns[1]]
    counted = [call[1] for turn in (turns[0], turns[2]) for call in turn[SETTLING:]]
    assert counted == [(TEXTS[at % 3],) for at in range(20)]


def test_tokens_are_those_of_the_texts_that_were_measured() -> None:
    _, found = measure(0.005, calls=3, batch_size=2)  # a, b c; d e f, a; b c, d e f: 12 words
    assert found["0"].tokens_per_second == pytest.approx(12 / (3 * 0.005))
    _, found = measure(0.005, calls=3, batch_size=2, pairs=["x"] * 3)
    assert found["0"].tokens_per_second == pytest.approx(18 / (3 * 0.005))


def test_no_further_turn_begins_when_the_time_is_over() -> None:
    asked, found = measure(0.001, calls=1000, seconds=0.0)
    assert len(asked) == SETTLING + BLOCK
    assert found["0"].p50_ms == pytest.approx(1)
