"""Measuring how long models take: interleaved, over the same texts, without warming up."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages.serving import latency
from stages.serving.latency import BLOCK, WARM_UP, latencies

TEXTS = ["a", "b c", "d e f"]


clock = SimpleNamespace(time=0.0)  # passes only when a model is asked


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock.time))


class Sleeper:
    """A model that takes its time, and keeps what it was asked; its tokens are words."""

    def __init__(self, seconds: float, asked: list[Any]) -> None:
        self.seconds, self.asked, self.tokens = seconds, asked, self

    def encode(self, texts: list[str], pairs: list[str] | None) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * len(text.split()) for text in [*texts, *(pairs or [])]]}

    def outputs(self, texts: list[str], pairs: list[str] | None, batch_size: int) -> np.ndarray:
        assert batch_size == len(texts)
        self.asked.append((self.seconds, tuple(texts)))
        clock.time += 1.0 if len(self.asked) <= WARM_UP else self.seconds
        return np.zeros((len(texts), 2))


def measure(*seconds: float, **options: Any) -> tuple[list[Any], dict[str, Any]]:
    asked: list[Any] = []
    sleepers = {str(index): Sleeper(each, asked) for index, each in enumerate(seconds)}
    return asked, latencies(sleepers, **{"texts": TEXTS, "batch_size": 1, "calls": 20, **options})  # type: ignore[arg-type]


def test_models_are_interleaved_over_the_same_texts_and_each_has_its_own_times_without_warming_up() -> None:
    asked, times = measure(0.002, 0.006)
    assert [(times[name].p50_ms, times[name].p95_ms) for name in "01"] == [pytest.approx((2, 2)), pytest.approx((6, 6))]
    size = WARM_UP + BLOCK
    blocks = [asked[start : start + size] for start in range(0, len(asked), size)]
    assert [{seconds for seconds, _ in block} for block in blocks] == [{0.002}, {0.006}, {0.002}, {0.006}]
    texts = [[text for _, text in block] for block in blocks]
    assert texts[0] == texts[1]
    assert texts[0][WARM_UP:] + texts[2][WARM_UP:] == [(TEXTS[index % 3],) for index in range(20)]


@pytest.mark.parametrize(("pairs", "tokens"), [(None, 12), (["x"] * 3, 18)])
def test_tokens_are_those_of_the_texts_that_were_measured(pairs: list[str] | None, tokens: int) -> None:
    _, times = measure(0.005, calls=3, batch_size=2, pairs=pairs)  # a, b c; d e f, a; b c, d e f: 12 words
    assert times["0"].tokens_per_second == pytest.approx(tokens / (3 * 0.005))


def test_no_further_block_begins_when_the_time_is_over() -> None:
    asked, times = measure(0.001, calls=1000, seconds=0.0)
    assert len(asked) == WARM_UP + BLOCK
    assert times["0"].p50_ms == pytest.approx(1)
