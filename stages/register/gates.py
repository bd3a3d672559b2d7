"""The gates that need this model's reports alone: one verdict each, with value, limit and reason."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from stages.common.display import display
from stages.common.params.evaluate import EvaluateParams
from stages.common.params.register import Gates, SliceGate

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
    """Judge a model by `reports/metrics.json` and `reports/plots/slices.csv`; a number that is NaN fails its gate."""
    verdicts = [_limited(f"minimum {name}", metrics[name], limit, name) for name, limit in gates.minimum.items()]
    verdicts += [_baseline(name, gates, evaluated.bootstrap.confidence, metrics) for name in gates.beat_baselines]
    if gates.slices:
        verdicts.append(_slices(gates.slices, evaluated.slices.min_rows, slices))
    if (limit := gates.max_ece) is not None:
        ece = metrics["calibration"]["ece"]
        verdicts.append(_limited("max_ece", ece, limit, "expected calibration error", most=True))
    if (limit := gates.max_size_mb) is not None:
        size = round(metrics["model"]["bytes"] / 2**20, 6)
        verdicts.append(_limited("max_size_mb", size, limit, "the weights' size in MiB,", most=True))
    return verdicts + [_behaviour(name, limit, metrics["behaviour"][name]) for name, limit in gates.behaviour.items()]


def gain_of(scores: Mapping[str, Any], metric: str, confidence: float) -> str:
    """Return a comparison (see `stages.tasks.bootstrap`) in words."""
    gain, low, high = (scores[f"{metric}_gain{end}"] for end in ("", "_low", "_high"))
    return (
        f"gain {gain:+.4f}, {100 * confidence:g}% interval [{low:+.4f}, {high:+.4f}]; "
        f"{scores['fixed']} rows fixed, {scores['broken']} broken, McNemar's p {scores['mcnemar_p']:.2g}"
    )


def _limited(gate: str, value: float, limit: float, what: str, *, most: bool = False) -> Verdict:
    """Compare a number (named `what`) with its least, or `most`, allowed value."""
    passed = value <= limit if most else value >= limit
    words = ("over", "at most") if most else ("under", "at least")
    return Verdict(gate, value, limit, passed, f"{what} {value:.4f} is {words[passed]} {limit:.4f}")


def _baseline(name: str, gates: Gates, confidence: float, metrics: Mapping[str, Any]) -> Verdict:
    ours, baseline = metrics["macro_f1"], metrics["baselines"][name]
    value, limit, how = ours, baseline["macro_f1"], "above"
    if gates.beat_significantly:
        value, limit, how = baseline["macro_f1_gain_low"], 0.0, "significantly above"
    passed = value > limit
    reason = f"macro_f1 {ours:.4f} is {'' if passed else 'not '}{how} the baseline's {baseline['macro_f1']:.4f}"
    return Verdict(f"beat {name}", value, limit, passed, f"{reason}: {gain_of(baseline, 'macro_f1', confidence)}")


def _slices(gate: SliceGate, min_rows: int, slices: pl.DataFrame) -> Verdict:
    name = f"slices {gate.metric}"
    if not slices.height:
        reason = f"no slice has the {min_rows} rows of evaluate.slices.min_rows; lower that, or set gates.slices: null"
        return Verdict(name, None, gate.minimum, False, reason)
    worst = slices.sort(gate.metric, maintain_order=True).row(0, named=True)
    what = f"the worst of {slices.height} slices, {display(worst['slice'], NAME)!r} with {worst['rows']} rows, has"
    value = float(worst[gate.metric])
    passed = value >= gate.minimum
    reason = f"{what} {gate.metric} {value:.4f}, {'at least' if passed else 'under'} {gate.minimum:.4f}"
    return Verdict(name, value, gate.minimum, passed, reason)


def _behaviour(name: str, limit: float, result: Mapping[str, Any]) -> Verdict:
    gate = f"behaviour {name}"
    if result["pass_rate"] is None:
        return Verdict(gate, None, limit, True, "no row of the test split can be changed this way: nothing to judge")
    verdict = _limited(gate, result["pass_rate"], limit, "pass rate")
    return replace(verdict, reason=f"{verdict.reason} ({result['passed']} of {result['cases']} cases passed)")
