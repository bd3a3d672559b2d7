"""What each form of the model costs on this machine, now: for people, MLflow and `logs/`, never for an out.

`python -m stages.export.costs MODEL EXPORTED VARIANT` answers the texts that come as JSON and prints its peak memory.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.common.serving.classifier import FILES, Classifier, Package, Variant
from stages.common.serving.latency import Latency, latencies
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
    """Measure all forms of a model that there are, by name; times interleaved, each with one thread of the processor.

    One thread, for that is what a form costs: what more of them gain depends on how busy the others are.
    """
    classifiers: dict[str, Classifier] = {name: Classifier(package, name, threads=1) for name in package.variants}
    found = {size: latencies(classifiers, texts, size, calls, pairs, SECONDS) for size, calls in CALLS.items()}
    sizes = {name: (package.exported / FILES[name]).stat().st_size for name in classifiers if name in FILES}  # type: ignore[operator]
    return {
        name: Cost(
            sizes.get(name, size_of(package.model)["bytes"]) / 2**20,
            peak_mib(package, name, list(texts[: 2 * max(CALLS)])),
            {size: latency[name] for size, latency in found.items()},
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


def peak_mib(package: Package, variant: Variant, texts: list[str]) -> float | None:
    """Return the MiB that a new process of this form takes at most to answer these texts, or None if it cannot."""
    command = [sys.executable, "-m", __name__, str(package.model), str(package.exported), variant]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  warning: the memory of {variant} was not measured: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return float(done.stdout)


def _main(model: str, exported: str, variant: Variant) -> None:
    package = Package(Path(model), Path(exported))
    Classifier(package, variant).probabilities(json.load(sys.stdin), batch_size=max(CALLS))
    # Linux keeps the parent's peak in `ru_maxrss` of a child, but not in this file.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(round(int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024, 1))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3])  # type: ignore[arg-type]
