"""The gates that need this model's reports alone: one verdict each, with value, limit and reason."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from stages.common.display import display
from stages.common.params import Params
from stages.common.params.register import SliceGate
from stages.common.params.tasks import Score

TEXTS = 30  # general ones, of which fewer have no interval to speak of
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
    params: Params, scores: Mapping[str, Any], slices: pl.DataFrame, export: Mapping[str, Any]
) -> list[Verdict]:
    """Judge a model by `scores.json`, `plots/slices.csv` and `export.json`; a number that is NaN fails its gate."""
    gates, main = params.register_.gates, params.spec.score(params.champion_metric)
    verdicts = [limited(f"minimum {name}", scores[name], limit, name) for name, limit in gates.minimum.items()]
    verdicts += [
        limited(f"maximum {name}", scores[name], limit, name, most=True) for name, limit in gates.maximum.items()
    ]
    verdicts += [_baseline(name, params, main, scores) for name in gates.beat_baselines]
    if gates.slices:
        score = params.spec.score(params.slices_metric)
        verdicts.append(_slices(gates.slices, score, params.evaluate.slices.min_rows, slices))
    if (limit := gates.max_ece) is not None:
        ece = scores["calibration"]["ece"]
        verdicts.append(limited("max_ece", ece, limit, "expected calibration error", most=True))
    if (limit := gates.coverage_within) is not None:
        nominal, found = (scores["calibration"][name] for name in ("nominal", "coverage"))
        if found is None:
            verdicts.append(failed("coverage_within", f"intervals: {scores['calibration']['problem']}"))
        else:
            off = f"coverage {found:.4f} of intervals for {nominal:g}: the distance"
            verdicts.append(limited("coverage_within", round(abs(found - nominal), 6), limit, off, most=True))
    verdicts += [
        limited(f"recall {label}", scores["per_class"][label]["recall"], limit, f"recall of {display(label, NAME)}")
        if label in scores["per_class"]
        else failed(f"recall {label}", "the model has no such label: mend register.gates.recall")
        for label, limit in gates.recall.items()
    ]
    if (limit := gates.retention) is not None:
        if (kept := scores.get("retention", {"texts": 0}))["texts"] < TEXTS:
            few = f"of {kept['texts']} general texts little can be said: {TEXTS} are the least"
            verdicts.append(failed("retention", f"{few}, in ingest.retention_texts and evaluate.retention_rows"))
        else:
            change = f"{kept['base_bits']:.4f} → {kept['bits']:.4f} bits per byte of {kept['texts']} general texts"
            what = f"{change}: the upper end of the loss"
            verdicts.append(limited("retention", kept["loss_high"], limit, what, most=True))
    if (limit := gates.merge_gap) is not None and "merge_gap" in export:  # else nothing was merged
        what = "the largest distance of a row's loss a token from that of the adapter beside the weights,"
        verdicts.append(limited("merge_gap", export["merge_gap"], limit, what, most=True))
    if (limit := gates.max_size_mb) is not None:
        size = round(scores["model"]["bytes"] / 2**20, 6)
        verdicts.append(limited("max_size_mb", size, limit, "the weights' size in MiB,", most=True))
    return verdicts + [_behaviour(name, limit, scores["behaviour"][name]) for name, limit in gates.behaviour.items()]


def gain_of(scores: Mapping[str, Any], metric: str, confidence: float) -> str:
    """Return a comparison (see `stages.tasks.bootstrap`) in words."""
    gain, low, high = (scores[f"{metric}_gain{end}"] for end in ("", "_low", "_high"))
    text = f"gain {gain:+.4f}, {100 * confidence:g}% interval [{low:+.4f}, {high:+.4f}]"
    if "fixed" in scores:
        text += f"; {scores['fixed']} rows fixed, {scores['broken']} broken, McNemar's p {scores['mcnemar_p']:.2g}"
    return text


def limited(gate: str, value: float, limit: float, what: str, *, most: bool = False) -> Verdict:
    """Compare a number (named `what`) with its least, or `most`, allowed value."""
    passed = value <= limit if most else value >= limit
    words = ("over", "at most") if most else ("under", "at least")
    return Verdict(gate, value, limit, passed, f"{what} {value:.4f} is {words[passed]} {limit:.4f}")


def _baseline(name: str, params: Params, main: Score, scores: Mapping[str, Any]) -> Verdict:
    measured = {**scores["baselines"], **scores.get("answer_baselines", {})}
    if name not in measured:
        return failed(f"beat {name}", "it was not measured on these rows: mend register.gates.beat_baselines")
    if main.name not in measured[name]:  # it only answers
        main = params.spec.score(params.answer_metric)
    ours, baseline = scores[main.name], measured[name]
    value, limit = ours, baseline[main.name]
    how = "above" if main.greater_is_better else "below"
    passed = value > limit if main.greater_is_better else value < limit
    if params.register_.gates.beat_significantly:
        value, limit, how = baseline[f"{main.name}_gain_low"], 0.0, f"significantly {how}"
        passed = value > limit
    reason = f"{main.name} {ours:.4f} is {'' if passed else 'not '}{how} the baseline's {baseline[main.name]:.4f}"
    gain = gain_of(baseline, main.name, params.evaluate.bootstrap.confidence)
    return Verdict(f"beat {name}", value, limit, passed, f"{reason}: {gain}")


def _slices(gate: SliceGate, score: Score, min_rows: int, slices: pl.DataFrame) -> Verdict:
    name, most = f"slices {score.name}", not score.greater_is_better
    limit = gate.maximum if most else gate.minimum
    assert limit is not None  # as params are checked
    if not slices.height:
        reason = f"no slice has the {min_rows} rows of evaluate.slices.min_rows; lower that, or set gates.slices: null"
        return Verdict(name, None, limit, False, reason)
    worst = slices.sort(score.name, descending=most, maintain_order=True).row(0, named=True)
    what = f"the worst of {slices.height} slices, {display(worst['slice'], NAME)!r} with {worst['rows']} rows, has"
    verdict = limited(name, float(worst[score.name]), limit, score.name, most=most)
    return replace(verdict, reason=f"{what} {verdict.reason.replace(' is ', ', ')}")


def _behaviour(name: str, limit: float, result: Mapping[str, Any]) -> Verdict:
    gate = f"behaviour {name}"
    if result["pass_rate"] is None:
        return Verdict(gate, None, limit, True, "no row of the test split can be changed this way: nothing to judge")
    verdict = limited(gate, result["pass_rate"], limit, "pass rate")
    return replace(verdict, reason=f"{verdict.reason} ({result['passed']} of {result['cases']} cases passed)")
