"""The gates that need this model's reports alone: one verdict each, with value, limit and reason."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from stages.common.display import display
from stages.common.params.evaluate import EvaluateParams
from stages.common.params.register import Gates, SliceGate

MIB = 2**20
NAME = 80  # characters of a slice's name, which comes out of the data


@dataclass(frozen=True)
class Verdict:
    """What a gate says; `value` and `limit` are None where there was nothing to compare."""

    gate: str
    value: float | None
    limit: float | None
    passed: bool
    reason: str

    def line(self) -> str:
        """Return the verdict as a line for the terminal."""
        return f"{'passed' if self.passed else 'FAILED'}  {self.gate}: {self.reason}"


def failed(gate: str, reason: str) -> Verdict:
    """Return the verdict on a model that could not be compared."""
    return Verdict(gate, None, None, False, reason)


def judge_reports(
    gates: Gates, evaluated: EvaluateParams, metrics: Mapping[str, Any], slices: pl.DataFrame
) -> list[Verdict]:
    """Judge a model by `reports/metrics.json` and `reports/plots/slices.csv`; what they lack fails its gate."""
    minima = gates.minimum.items()
    return [
        *(_limited(f"minimum {metric}", _number(metrics, metric), limit, metric, metric) for metric, limit in minima),
        *(_baseline(name, gates, evaluated.bootstrap.confidence, metrics) for name in gates.beat_baselines),
        *([_slices(gates.slices, evaluated.slices.min_rows, slices)] if gates.slices else []),
        *_at_most(gates, metrics),
        *(_behaviour(name, limit, metrics) for name, limit in gates.behaviour.items()),
    ]


def gain_of(scores: Mapping[str, Any], metric: str, confidence: float) -> str | None:
    """Return a comparison (see `stages.tasks.bootstrap`) in words, None where one of its numbers is missing."""
    keys = (f"{metric}_gain", f"{metric}_gain_low", f"{metric}_gain_high", "mcnemar_p", "fixed", "broken")
    numbers = [_number(scores, key) for key in keys]
    if None in numbers:
        return None
    gain, low, high, p_value, fixed, broken = numbers
    return (
        f"gain {gain:+.4f}, {100 * confidence:g}% interval [{low:+.4f}, {high:+.4f}]; "
        f"{fixed:.0f} rows fixed, {broken:.0f} broken, McNemar's p {p_value:.2g}"
    )


def _limited(gate: str, value: float | None, limit: float, what: str, key: str, *, most: bool = False) -> Verdict:
    """Compare a number of the report (named `what`, under `key`) with its least, or `most`, allowed value."""
    if value is None:
        return _lacking(gate, limit, key)
    passed = value <= limit if most else value >= limit
    words = ("over", "at most") if most else ("under", "at least")
    return Verdict(gate, value, limit, passed, f"{what} {value:.4f} is {words[passed]} {limit:.4f}")


def _baseline(name: str, gates: Gates, confidence: float, metrics: Mapping[str, Any]) -> Verdict:
    gate, key = f"beat {name}", f"baselines.{name}.macro_f1"
    value, theirs = _number(metrics, "macro_f1"), _number(metrics, "baselines", name, "macro_f1")
    if value is None or theirs is None:
        return _lacking(gate, None, "macro_f1" if value is None else key)
    gain = gain_of(metrics["baselines"][name], "macro_f1", confidence)
    if not gates.beat_significantly:
        passed = value > theirs
        reason = f"macro_f1 {value:.4f} is {'above' if passed else 'not above'} the baseline's {theirs:.4f}"
        return Verdict(gate, value, theirs, passed, f"{reason}: {gain}" if gain else reason)
    if gain is None:
        return _lacking(gate, 0.0, f"{key}_gain")
    low = float(metrics["baselines"][name]["macro_f1_gain_low"])
    above = f"{'' if low > 0 else 'not '}significantly above the baseline's {theirs:.4f}"
    return Verdict(gate, low, 0.0, low > 0, f"macro_f1 {value:.4f} is {above}: {gain}")


def _slices(gate: SliceGate, min_rows: int, slices: pl.DataFrame) -> Verdict:
    name = f"slices {gate.metric}"
    scored = slices.filter(pl.col(gate.metric).is_finite()) if slices.height else slices
    if not scored.height:
        reason = f"no slice has the {min_rows} rows of evaluate.slices.min_rows; lower that, or set gates.slices: null"
        return Verdict(name, None, gate.minimum, False, reason)
    worst = scored.sort(gate.metric, maintain_order=True).row(0, named=True)
    value = float(worst[gate.metric])
    passed = value >= gate.minimum
    reason = f"the worst of {scored.height} slices, {display(worst['slice'], NAME)!r} with {worst['rows']} rows, "
    reason += f"has {gate.metric} {value:.4f}, {'at least' if passed else 'under'} {gate.minimum:.4f}"
    return Verdict(name, value, gate.minimum, passed, reason)


def _at_most(gates: Gates, metrics: Mapping[str, Any]) -> Iterator[Verdict]:
    if (limit := gates.max_ece) is not None:
        ece = _number(metrics, "calibration", "ece")
        yield _limited("max_ece", ece, limit, "expected calibration error", "calibration.ece", most=True)
    if (limit := gates.max_size_mb) is not None:
        size = _number(metrics, "model", "bytes")
        mib = None if size is None else round(size / MIB, 6)
        yield _limited("max_size_mb", mib, limit, "the weights' size in MiB,", "model.bytes", most=True)


def _behaviour(name: str, limit: float, metrics: Mapping[str, Any]) -> Verdict:
    gate, result = f"behaviour {name}", metrics.get("behaviour", {}).get(name) or {}
    if result.get("pass_rate", math.nan) is None:
        return Verdict(gate, None, limit, True, "no row of the test split can be changed this way: nothing to judge")
    verdict = _limited(gate, _number(result, "pass_rate"), limit, "pass rate", f"behaviour.{name}")
    if verdict.value is None:
        return verdict
    return replace(verdict, reason=f"{verdict.reason} ({result['passed']} of {result['cases']} cases passed)")


def _number(report: Any, *keys: str) -> float | None:
    """Return the finite number under the keys of a report, None where there is none."""
    for key in keys:
        report = report.get(key) if isinstance(report, Mapping) else None
    plain = isinstance(report, int | float) and not isinstance(report, bool)
    return report if plain and math.isfinite(report) else None


def _lacking(gate: str, limit: float | None, what: str) -> Verdict:
    reason = f"reports/metrics.json has no number for {what}; run the stage evaluate again: dvc repro --force evaluate"
    return Verdict(gate, None, limit, False, reason)
