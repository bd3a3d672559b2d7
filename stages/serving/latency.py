"""How long a packaged model takes to answer, on this machine, now: never part of an out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.serving.backends import Predictor

BLOCK = 10  # calls in a row: after a switch, the threads of the model before may still spin
WARM_UP = 2  # calls at the start of a block that are not counted


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call at the median and the 95th percentile, and tokens a second (padding not counted)."""

    p50_ms: float
    p95_ms: float
    tokens_per_second: float


def latencies(
    predictors: dict[str, Predictor],
    texts: Sequence[str],  # one at least; taken in order, again from the start after the last
    batch_size: int,  # texts a call
    calls: int = 100,  # measured per predictor, after a few that are not
    pairs: Sequence[str] | None = None,  # second texts, for a model of pairs
    seconds: float = 60.0,  # after so many no further block begins; each predictor has one at least
) -> dict[str, Latency]:
    """Measure predictors on the same batches, interleaved, so that a busy moment slows all of them."""
    batches = []
    for start in range(0, calls * batch_size, batch_size):
        rows = [index % len(texts) for index in range(start, start + batch_size)]
        batches.append(([texts[row] for row in rows], [pairs[row] for row in rows] if pairs else None))
    times: dict[str, list[float]] = {name: [] for name in predictors}
    deadline = time.perf_counter() + seconds
    for start in range(0, calls, BLOCK):
        if start and time.perf_counter() > deadline:
            break
        block = batches[start : start + BLOCK]
        for name, predictor in predictors.items():
            for batch in block[:WARM_UP]:
                predictor.outputs(*batch, batch_size)
            for batch in block:
                began = time.perf_counter()
                predictor.outputs(*batch, batch_size)
                times[name].append(time.perf_counter() - began)
    result = {}
    for name, predictor in predictors.items():
        p50, p95 = (1000 * float(value) for value in np.percentile(times[name], [50, 95]))
        measured = (predictor.tokens.encode(*batch)["input_ids"] for batch in batches[: len(times[name])])
        result[name] = Latency(p50, p95, sum(len(ids) for batch in measured for ids in batch) / sum(times[name]))
    return result
