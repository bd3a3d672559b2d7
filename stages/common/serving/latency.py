"""How long a packaged model takes to answer, on this machine, now: never part of an out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.common.serving.classifier import Classifier

BLOCK = 10  # calls at a stretch: after a switch, the threads of the one before may still turn
SETTLING = 2  # calls that are not counted at the start of a stretch

Batch = tuple[list[str], list[str] | None]  # texts, and their second texts


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call at the median and the 95th percentile, and tokens a second (padding not counted)."""

    p50_ms: float
    p95_ms: float
    tokens_per_second: float


def latencies(
    classifiers: dict[str, Classifier],
    texts: Sequence[str],
    batch_size: int,
    calls: int = 100,
    pairs: Sequence[str] | None = None,
    seconds: float = 60.0,
) -> dict[str, Latency]:
    """Measure classifiers in turns over the same batches, so that a busy moment hits all of them.

    Args:
        classifiers: by name.
        texts: taken in order, round and round, `batch_size` to a call.
        batch_size: texts a call.
        calls: measured per classifier, after a few that are not.
        pairs: second texts, for a model of pairs.
        seconds: after so many no further turn begins; each classifier has one at least.

    Raises:
        ValueError: if there is no text.
    """
    if not len(texts):
        raise ValueError("no text to measure with")
    batches = [_batch(texts, pairs, call * batch_size, batch_size) for call in range(calls)]
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    until = time.perf_counter() + seconds
    for first in range(0, calls, BLOCK):
        if first and time.perf_counter() > until:
            break
        for name, classifier in classifiers.items():
            _timed(classifier, batches[first : first + SETTLING])
            times[name] += _timed(classifier, batches[first : first + BLOCK])
    return {name: _latency(classifier, batches, times[name]) for name, classifier in classifiers.items()}


def _batch(texts: Sequence[str], pairs: Sequence[str] | None, start: int, size: int) -> Batch:
    chosen = [at % len(texts) for at in range(start, start + size)]
    return [texts[at] for at in chosen], None if pairs is None else [pairs[at] for at in chosen]


def _timed(classifier: Classifier, batches: list[Batch]) -> list[float]:
    """Return the seconds that each call took."""
    times = []
    for texts, pairs in batches:
        began = time.perf_counter()
        classifier.probabilities(texts, pairs, len(texts))
        times.append(time.perf_counter() - began)
    return times


def _latency(classifier: Classifier, batches: list[Batch], times: list[float]) -> Latency:
    tokens = sum(len(ids) for batch in batches[: len(times)] for ids in classifier.tokens.encode(*batch)["input_ids"])
    p50, p95 = (float(value) * 1000 for value in np.percentile(times, [50, 95]))
    return Latency(p50, p95, tokens / sum(times))
