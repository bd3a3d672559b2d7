"""What a review comes to: whether it was reproduced, the gates, better or worse, and the risks, a sentence each.

Foreign names stand between backticks in the sentences; see `flows.reviewing.pages.wording`.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.reviewing.findings import Review
from flows.reviewing.pages.risks import risks_of
from flows.reviewing.pages.score import percent_of, score_of
from flows.reviewing.pages.wording import Line, counted, few, interval, quoted, unquoted

NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "weighted_f1": "weighted F1"}
GATES = 6  # failed gates that are named


@dataclass(frozen=True)
class Verdict:
    """Section 1.

    Args:
        reproduced: whether the recorded results come out again.
        gates: whether the head's model passed them.
        effect: better, worse, the same, or not to be told.
        risks: what else a reviewer should know, the most serious first.
    """

    reproduced: Line
    gates: Line
    effect: Line
    risks: tuple[Line, ...] = ()

    @property
    def headline(self) -> tuple[Line, Line, Line]:
        """The three sentences that come first."""
        return self.reproduced, self.gates, self.effect


def verdict_of(review: Review) -> Verdict:
    """Return what a review comes to."""
    return Verdict(_reproduced(review), _gates(review), _effect(review), risks_of(review))


def _reproduced(review: Review) -> Line:
    rebuild = review.rebuild
    outs = Counter(out.verdict for out in rebuild.outs)
    total, own = sum(outs.values()), " (in a virtual environment of its own)" if rebuild.venv else ""
    stage = f"{quoted(rebuild.first)} " if rebuild.first else ""
    how = f": {unquoted(rebuild.how)}" if rebuild.how else ""
    if rebuild.verdict == "identical":
        which = f"all {total:,}" if total else "all"
        return Line("good", f"Rebuilt from nothing{own}: {which} outs have the bytes that dvc.lock says")
    if rebuild.verdict == "equal":
        told = (
            f"{outs['identical']:,} of {total:,} outs have the same bytes, {outs['equal']:,} are within the tolerance"
        )
        if rebuild.agreement is not None:
            told += f"; {_share(rebuild.agreement)} of the test predictions are the same"
        return Line("good", f"Rebuilt from nothing{own}, equal though not to the byte: {told}")
    if rebuild.verdict == "different":
        first = f"{stage}is the first stage that differs" if stage else "the rebuild differs"
        many = f" ({outs['different'] + outs['missing']:,} of {total:,} outs differ)" if total else ""
        return Line("bad", f"Not reproduced{own}: {first}{how}{many}")
    if rebuild.verdict == "failed":
        return Line("bad", f"Not rebuilt{own}: {stage or 'a stage '}failed{how}")
    if rebuild.verdict == "tampered":
        return Line(
            "bad", f"Tampered with: {'what ' + stage if stage else 'what it '}made is not what dvc.lock says{how}"
        )
    if rebuild.verdict == "left out":
        return Line("warn", "Not rebuilt: that was left out, as asked; nobody has looked whether it can be")
    return Line("warn", _unrecorded(review, how))


def _unrecorded(review: Review, how: str) -> str:
    made = {
        "rebuilt": "; the results below are those of the run from nothing",
        "run": "; the results below were made by this review",
    }.get(review.head.results, "")
    if review.head.stale:
        how = f": dvc.lock is not of this code, params and data ({few([quoted(name) for name in review.head.stale])})"
    if not how and review.conflict is not None and review.conflict.lock:
        how = ": dvc.lock holds the marks of a merge"
    return f"Nothing to hold a rebuild against{how or ': there is no dvc.lock, as before the first run'}{made}"


def _share(share: float) -> str:
    """Return a share in percent that is 100 only where it is all."""
    shown = f"{100 * share:.2f}"
    return f"{'99.99' if shown == '100.00' and share < 1 else shown} %"


def _gates(review: Review) -> Line:
    if not review.gates:
        nothing = "there are no results yet" if review.head.results == "none" else "no registration report names any"
        return Line("warn", f"Gates: not judged, {nothing}")
    failed = [gate for gate in review.gates if gate.get("passed") is not True]
    if not failed:
        return Line("good", f"Gates: {len(review.gates)} of {len(review.gates)} passed")
    named = few([quoted(gate.get("gate", "")) + _beside(gate) for gate in failed], GATES)
    return Line("bad", f"Gates: {len(failed)} of {len(review.gates)} failed: {named}")


def _beside(gate: Mapping[str, Any]) -> str:
    """Return what a gate found beside its limit; a report of other hands may hold anything."""
    value, limit = (finite(gate.get(key)) for key in ("value", "limit"))
    told = [f"{value:.4g}"] if value is not None else []
    told += [f"limit {limit:.4g}"] if limit is not None else []
    return f" ({', '.join(told)})" if told else ""


def finite(value: Any) -> float | None:
    """Return a number of a report, None for anything else."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


def _effect(review: Review) -> Line:
    effect = review.effect
    if review.failure:
        return Line("warn", f"Not compared: {unquoted(review.failure)}")
    if review.base is None:
        return Line("warn", f"Not compared: {quoted(review.asked_base)} has no results that this could be held against")
    if effect is None:
        return Line("warn", "Not compared: one of the two sides has no predictions")
    if not effect.rows:
        why = unquoted(effect.missing[0]) if effect.missing else "no test row is in both"
        return Line("warn", f"Not compared: {why}")
    rows = f"on the {counted(effect.rows, 'test row')} that both share"
    gain = score_of(review, effect)
    flips = f"{counted(effect.fixed.count, 'row')} fixed, {effect.broken.count:,} broken"
    if not (effect.fixed.count or effect.broken.count or effect.moved):
        return Line("good", f"Same: every prediction is the same {rows}")
    if gain is None:
        return Line("warn", f"No score to compare {rows}; {flips}")
    told, low, high = interval(gain).partition(" [")[0], f"{gain.low:+.4f}", f"{gain.high:+.4f}"
    name = NAMES.get(gain.name, unquoted(gain.name, 40))
    score = f"{name} {told}, {percent_of(review)} interval [{low}, {high}] {rows}; {flips}"
    if gain.trend == "better":
        return Line("good", f"Better: {score}")
    if gain.trend == "worse":
        return Line("bad", f"Worse: {score}")
    return Line("warn", f"No clear difference: {score}")
