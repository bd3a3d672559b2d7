"""How long a packaged model takes to answer, on this machine, now: never part of an out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.serving.classifier import Classifier

BLOCK = 10  # calls at a stretch: after a switch, the threads of the one before may still turn
SETTLING = 2  # calls that are not counted at the start of a stretch


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
        texts: at least one; taken in order, round and round, `batch_size` to a call.
        batch_size: texts a call.
        calls: measured per classifier, after a few that are not.
        pairs: second texts, for a model of pairs.
        seconds: after so many no further turn begins; each classifier has one at least.
    """
    rows = [[at % len(texts) for at in range(call * batch_size, (call + 1) * batch_size)] for call in range(calls)]
    batches = [([texts[at] for at in some], [pairs[at] for at in some] if pairs else None) for some in rows]
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    until = time.perf_counter() + seconds
    for first in range(0, calls, BLOCK):
        if first and time.perf_counter() > until:
            break
        block = batches[first : first + BLOCK]
        for name, classifier in classifiers.items():
            for number, (some, second) in enumerate([*block[:SETTLING], *block]):
                began = time.perf_counter()
                classifier.probabilities(some, second, batch_size)
                if number >= len(block[:SETTLING]):
                    times[name].append(time.perf_counter() - began)
    result = {}
    for name, classifier in classifiers.items():
        p50, p95 = (1000 * float(value) for value in np.percentile(times[name], [50, 95]))
        encoded = (classifier.tokens.encode(*batch)["input_ids"] for batch in batches[: len(times[name])])
        result[name] = Latency(p50, p95, sum(len(ids) for batch in encoded for ids in batch) / sum(times[name]))
    return result
