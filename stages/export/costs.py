"""What each form of the model costs on this machine, now: for people, MLflow and `logs/`, never for an out."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.common.serving.classifier import FILES, Classifier, Package
from stages.common.serving.latency import Latency, latencies
from stages.export.memory import peak_mib
from stages.tasks.size import size_of

CALLS = {1: 100, 32: 6}  # texts a call: calls that are measured
SECONDS = 6.0  # for each of these, after which no further turn begins


@dataclass(frozen=True)
class Cost:
    """What one form costs: MiB on disk and at most in memory, and times by texts a call."""

    file_mib: float
    peak_mib: float | None
    latency: dict[int, Latency]

    def numbers(self) -> dict[str, float]:
        """Return all of it by name."""
        found = {"file_mib": self.file_mib} | ({} if self.peak_mib is None else {"peak_mib": self.peak_mib})
        for texts, one in self.latency.items():
            found |= {f"p50_ms_batch_{texts}": one.p50_ms, f"p95_ms_batch_{texts}": one.p95_ms}
            found |= {f"tokens_per_second_batch_{texts}": one.tokens_per_second}
        return {name: round(value, 3) for name, value in found.items()}


def measure(package: Package, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, Cost]:
    """Measure all forms of a model that there are, by name; times in turns, each with one thread of the processor.

    One thread, for that is what a form costs: what more of them gain depends on how busy the others are.
    """
    classifiers: dict[str, Classifier] = {name: Classifier(package, name, threads=1) for name in package.variants}
    found = {size: latencies(classifiers, texts, size, calls, pairs, SECONDS) for size, calls in CALLS.items()}
    some = list(texts[: 2 * max(CALLS)])
    return {
        name: Cost(
            _mib(package, name),
            peak_mib(package, name, some),
            {size: one[name] for size, one in found.items()},
        )
        for name in package.variants
    }


def table(costs: dict[str, Cost]) -> list[str]:
    """Return lines of a table for the terminal."""
    head = f"  {'':6}{'file':>10}{'memory':>10}" + "".join(
        f"{f'{texts} text' + 's' * (texts > 1):>12} p50{'p95':>8}" for texts in CALLS
    )
    lines = [f"{head}{'tokens/s':>11}"]
    for name, cost in costs.items():
        peak = "–" if cost.peak_mib is None else f"{cost.peak_mib:.0f} MiB"
        times = "".join(f"{one.p50_ms:>13.2f} ms{one.p95_ms:>8.2f}" for one in cost.latency.values())
        rate = cost.latency[max(CALLS)].tokens_per_second
        lines.append(f"  {name:6}{cost.file_mib:>6.1f} MiB{peak:>10}{times}{rate:>11,.0f}")
    return lines


def _mib(package: Package, variant: str) -> float:
    if variant in FILES and package.exported:
        return (package.exported / FILES[variant]).stat().st_size / 2**20
    return size_of(package.model)["bytes"] / 2**20
