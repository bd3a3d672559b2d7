"""How new rows and their answers differ from those that a model was made with, and whether chance alone would do that.

The measure is the population stability index, sum((new - old) * ln(new / old)) over the shares of the bins (Siddiqi
2006), with its usual limits: below 0.1 nothing to speak of, from 0.25 on a large shift. It is above 0 by chance, the
more so the fewer the rows (Yurdakul 2018). How far is found by drawing both sides from the same shares (a parametric
bootstrap); what chance brings on average is taken off, and what chance can explain is no sign of drift.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from stages.common.profile import Counts
from stages.common.shown import shown

Verdict = Literal["no sign of drift", "slight drift", "strong drift"]
VERDICTS: tuple[Verdict, ...] = ("no sign of drift", "slight drift", "strong drift")
SLIGHT, STRONG = 0.1, 0.25
ALPHA = 0.01  # of a false alarm in the whole report
DRAWS = 4_000
HALF = 0.5  # is added to each bin, so that an empty one has a logarithm
DIGITS = 4
CONTRIBUTORS = 5  # bins that the report names
WHAT = {
    "text": "rows without a text",
    "lengths": "lengths of the texts",
    "words": "commonest words",
    "new words": "words never seen in training",
    "labels": "predicted labels",
    "confidence": "confidence",
    "abstentions": "abstentions",
}


@dataclass(frozen=True)
class Measure:
    """One comparison. `psi` holds what chance does; `expected` is that on average, `limit` its upper bound."""

    measure: str
    verdict: Verdict
    reason: str
    psi: float
    expected: float
    limit: float
    total_variation: float
    n: int
    bins: list[dict[str, Any]]


def drift_report(profile: Mapping[str, Any], counts: Counts, left_out: Mapping[str, str]) -> dict[str, Any]:
    """Hold counts against a profile.

    Args:
        profile: of the model, by `stages.common.profile`.
        counts: the same measures of the new rows.
        left_out: measures that cannot be compared, with the reason.

    Returns:
        `verdict` (the worst; `not compared` without any), `measures` and `not_compared`.
    """
    not_compared = {WHAT[name]: reason for name, reason in left_out.items()}
    names = [name for name in WHAT if name in profile["measures"] and name not in left_out]
    measures = []
    for name in names:
        baseline = profile["measures"][name]
        if sum(counts.get(name, [])) and sum(baseline["counts"]):
            measures.append(_compared(name, profile, counts[name], ALPHA / len(names)))
        else:
            not_compared[WHAT[name]] = "there is nothing to count"
    worst = max((VERDICTS.index(measure.verdict) for measure in measures), default=None)
    return {
        "verdict": "not compared" if worst is None else VERDICTS[worst],
        "trained_on_rows": profile["rows"],
        "trained_on_labels": profile["train_labels"],
        "measures": [asdict(measure) for measure in measures],
        "not_compared": not_compared,
    }


def psi(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the population stability index of counts [… x bins], each bin counted half a row higher."""
    shares = [(counts + HALF) / (counts + HALF).sum(axis=-1, keepdims=True) for counts in (old, new)]
    return np.asarray(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum(axis=-1))


def by_chance(old: np.ndarray, size: float, alpha: float) -> tuple[float, float]:
    """Return mean and upper bound of the PSI between a sample like `old` and one of `size`, both of the same shares."""
    rng = np.random.default_rng(0)
    shares = (old + HALF) / (old + HALF).sum()
    sizes = (max(1, round(float(old.sum()))), max(1, round(size)))
    drawn = psi(*(rng.multinomial(count, shares, DRAWS).astype(np.float64) for count in sizes))
    return float(drawn.mean()), float(np.quantile(drawn, 1 - alpha, method="higher"))


def _compared(name: str, profile: Mapping[str, Any], counts: list[int], alpha: float) -> Measure:
    baseline = profile["measures"][name]
    design = baseline.get("design", 1.0)
    old, new = np.array(baseline["counts"]) / design, np.array(counts) / design  # as if they were independent
    found = float(psi(old, new))
    expected, limit = by_chance(old, float(new.sum()), alpha)
    excess, by_luck = found - expected, found <= limit
    at = 0 if by_luck or excess < SLIGHT else 1 if excess < STRONG else 2
    shares = [side / side.sum() for side in (old, new)]
    moved = shares[1] - shares[0]
    bins = [
        {"bin": bin_name, "before": round(float(before), DIGITS), "now": round(float(now), DIGITS)}
        for bin_name, before, now in zip(_bin_names(name, profile), *shares, strict=True)
    ]
    most = sorted(range(len(bins)), key=lambda place: (-abs(moved[place]), place))[:CONTRIBUTORS]
    n = int(sum(counts))
    named = [bins[place] for place in most] if name == "words" else bins
    units = profile["unit"] if "words" in name else "rows"
    return Measure(
        measure=WHAT[name] if profile["unit"] == "words" else WHAT[name].replace("words", "characters"),
        verdict=VERDICTS[at],
        reason=_reason(at, by_luck, n, units, bins[most[0]]),
        psi=round(found, DIGITS),
        expected=round(expected, DIGITS),
        limit=round(limit, DIGITS),
        total_variation=round(float(np.abs(moved).sum() / 2), DIGITS),
        n=n,
        bins=named,
    )


def _reason(at: int, by_luck: bool, n: int, units: str, most: Mapping[str, Any]) -> str:
    if at:
        return f"most of all {most['bin']}: {most['before']:.1%} before, {most['now']:.1%} now"
    if by_luck:
        return f"no more than chance does with {n:,} {units}"
    return "more than chance, but too little to matter"


def _bin_names(name: str, profile: Mapping[str, Any]) -> list[str]:
    measure = profile["measures"][name]
    match name:
        case "text":
            return ["with a text", "without one"]
        case "lengths" | "confidence":
            edges = [f"{edge:g}" for edge in measure["edges"]]
            if not edges:
                return ["any"]
            between = [f"{low} to {high}" for low, high in pairwise(edges)]
            what = " characters" if name == "lengths" else ""
            return [f"{part}{what}" for part in (f"below {edges[0]}", *between, f"{edges[-1]} or more")]
        case "words":
            return [*(shown(repr(word), 40) for word in measure["words"]), f"other {profile['unit']}"]
        case "new words":
            return ["known", "new"]
        case "labels":
            return list(measure["labels"])
    return ["answered", "abstained"]


def drift_table(report: Mapping[str, Any]) -> Table:
    """Return the report as a table for the terminal."""
    table = Table(title=f"Drift: {report['verdict']}", title_justify="left")
    for column in ("measure", "verdict", "PSI", "by chance up to", "reason"):
        table.add_column(column, justify="right" if column in ("PSI", "by chance up to") else "left")
    for measure in report["measures"]:
        cells = [f"{measure['psi']:.3f}", f"{measure['limit']:.3f}"]
        reason = shown(measure["reason"], 120)
        table.add_row(measure["measure"], measure["verdict"], *cells, Text(reason))
    for name, reason in report["not_compared"].items():
        table.add_row(name, "not compared", "", "", Text(reason))
    return table
