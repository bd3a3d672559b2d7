"""What a review comes to, a sentence each: reproduced or not, the gates, better or worse, and the risks.

Foreign names stand between backticks in the sentences; pages show these as code.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from flows.reviewing.findings import Effect, Figure, Gain, Review
from stages.common.redact import redacted
from stages.common.shown import READ, listed, shown

NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "weighted_f1": "weighted F1"}
NAME, LINE = 60, 200  # characters of a foreign name, of a line that another part wrote
FEW = 4  # names in a sentence
NOTES = 12
CONFIDENT = 0.9  # from which a regressed row is a confident mistake
LEAST_ROWS = 200  # of which a calibration error means something
GROWN = {"": 1.25, "MiB": 1.1, "ms": 1.2}  # times as much that is worth a line, by unit
WATCHED = {  # settings whose change a reviewer should not overlook
    "register.gates": "The gates themselves changed",
    "evaluate": "How the model is measured changed",
    "clean.split": "What decides on the splits changed",
    "seed": "What decides on the splits changed",
    "review": "What counts as reproduced changed",
}


class Line(NamedTuple):
    """A sentence without its full stop, and how it is meant."""

    tone: Literal["good", "warn", "bad"]
    text: str


@dataclass(frozen=True)
class Verdict:
    """The three sentences that come first, and what else a reviewer should know, the most serious first."""

    headline: tuple[Line, Line, Line]
    risks: tuple[Line, ...] = ()


def verdict_of(review: Review) -> Verdict:
    """Return what a review comes to."""
    risks = [*_record_risks(review), *_change_risks(review), *_effect_risks(review), *_other_risks(review)]
    ordered = tuple(sorted(risks, key=lambda line: line.tone != "bad"))
    return Verdict((_reproduced(review), _gates(review), _effect(review)), ordered)


def quoted(name: object, most: int = NAME) -> str:
    """Return a foreign name between backticks, of which it holds none itself."""
    return f"`{unquoted(name, most) or '–'}`"


def unquoted(text: object, most: int = LINE) -> str:
    """Return a line in which nothing is code."""
    return shown(redacted(str(text)[: most * READ]).replace("`", "'"), most).strip()


def number(value: float | None, unit: str = "") -> str:
    """Return a number with as many digits as it is worth, and its unit."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 1000 else 1 if unit and abs(value) >= 10 else 4
    return f"{value:,.{digits}f} {unit}".strip()


def interval(gain: Gain) -> str:
    """Return `+0.0123 [+0.0031, +0.0215]`."""
    return f"{gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def confidence_of(review: Review) -> str:
    """Return the confidence of the intervals: `95 %`."""
    share = _setting(review.head.data, "evaluate", "bootstrap", "confidence")
    return f"{100 * (share if isinstance(share, float) else 0.95):g} %"


# ── the headline ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _reproduced(review: Review) -> Line:
    rebuild = review.rebuild
    counts = Counter(out.verdict for out in rebuild.outs)
    total, how = len(rebuild.outs), f": {unquoted(rebuild.how)}" if rebuild.how else ""
    if rebuild.verdict == "identical":
        return Line("good", f"Rebuilt from nothing: all {total:,} outs have the bytes that dvc.lock says")
    if rebuild.verdict == "equal":
        same = f"{counts['identical']:,} of {total:,} outs have the same bytes"
        return Line("good", f"Rebuilt from nothing, equal within the tolerance: {same}")
    if rebuild.verdict == "different":
        bad = counts["different"] + counts["missing"]
        first = f"{quoted(rebuild.first)} is the first stage that differs"
        return Line("bad", f"Not reproduced: {first}{how} ({bad:,} of {total:,} outs differ)")
    if rebuild.verdict == "failed":
        return Line("bad", f"Not rebuilt: {quoted(rebuild.first)} failed{how}")
    if rebuild.verdict == "left out":
        return Line("warn", "Not rebuilt: that was left out, as asked")
    if review.head.stale:
        how = f": dvc.lock is not of this code, params and data ({_names(review.head.stale)})"
    made = {"rebuilt": "those of the run from nothing", "run": "made by this review"}.get(review.head.results)
    below = f"; the results below are {made}" if made else ""
    return Line("warn", f"Nothing to compare a rebuild with{how or ': there is no dvc.lock'}{below}")


def _gates(review: Review) -> Line:
    if not review.gates:
        nothing = "there are no results yet" if review.head.results == "none" else "no registration report names any"
        return Line("warn", f"Gates: not judged, {nothing}")
    failed = [gate for gate in review.gates if gate.get("passed") is not True]
    if not failed:
        return Line("good", f"Gates: all {len(review.gates)} passed")
    named = [f"{quoted(gate.get('gate', ''))}{_beside(gate)}" for gate in failed]
    return Line("bad", f"Gates: {len(failed)} of {len(review.gates)} failed: {listed(named, FEW)}")


def _beside(gate: Mapping[str, Any]) -> str:
    """Return what a gate found beside its limit."""
    value, limit = gate.get("value"), gate.get("limit")
    sound = all(isinstance(one, int | float) and math.isfinite(one) for one in (value, limit))
    return f" ({value:.4g}, limit {limit:.4g})" if sound else ""


def _effect(review: Review) -> Line:
    effect = review.effect
    if effect is None or review.base is None or not effect.rows or not effect.scores:
        base = f"{quoted(review.asked_base)} has no results" if review.base is None else "one side has no predictions"
        why = review.failure or (effect.missing[0] if effect and effect.missing else base)
        return Line("warn", f"Not compared: {why}")
    rows = f"on the {effect.rows:,} test rows that both have"
    if not (effect.improved.total or effect.regressed.total or effect.moved):
        return Line("good", f"Same: every prediction is the same {rows}")
    gain = _deciding(review, effect)
    score = f"{NAMES.get(gain.name, gain.name)} {interval(gain)} with {confidence_of(review)} confidence {rows}"
    found = f"{score}; {effect.improved.total:,} rows improved, {effect.regressed.total:,} regressed"
    if gain.trend == "better":
        return Line("good", f"Better: {found}")
    return Line("bad", f"Worse: {found}") if gain.trend == "worse" else Line("warn", f"No clear difference: {found}")


def _deciding(review: Review, effect: Effect) -> Gain:
    """Return the score that decides: that of the champion's gate, or else macro-F1, or else the first."""
    asked = str(_setting(review.head.data, "register", "gates", "champion", "metric"))
    gains = {gain.name: gain for gain in effect.scores}
    return gains.get(asked) or gains.get("macro_f1") or effect.scores[0]


def _setting(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


# ── the risks ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _record_risks(review: Review) -> Iterator[Line]:
    made = [path for path in review.conflicts if path == "dvc.lock" or path.startswith("reports/")]
    base = quoted(review.asked_base)
    if other := [path for path in review.conflicts if path not in made]:
        yield Line("bad", f"Conflicts with {base}, to be solved by hand: {_names(other)}")
    if made:
        whole = "take one side whole (`git checkout --theirs dvc.lock reports`), `make run`, then commit"
        yield Line("bad", f"{_names(made)} cannot be merged with {base}: {whole}")
    if review.head.stale:
        stages = listed([f"{quoted(name)} ({quoted(why, 100)})" for name, why in review.head.stale.items()], FEW)
        yield Line("bad", f"dvc.lock is not of this code, params and data: {stages}; `make run`, then commit")
    if review.base is not None and review.base.stale:
        yield Line("warn", f"The base's dvc.lock is not of its own code, params and data: {_names(review.base.stale)}")
    if review.base is not None and review.base.results == "run":
        yield Line(
            "warn", "The base's results were made by this review, as they are in neither DVC's cache nor a remote"
        )
    other_machine = [
        f"{quoted(one.name)} {quoted(one.recorded)} → {quoted(one.here)}" for one in review.rebuild.environment
    ]
    if other_machine:
        yield Line("warn", f"Rebuilt in another environment than it was recorded in: {listed(other_machine, FEW)}")
    if not review.rebuild.environment_known and review.rebuild.verdict in ("equal", "different"):
        yield Line("warn", "Which hardware the recorded model was trained on is not known")


def _change_risks(review: Review) -> Iterator[Line]:
    changes = review.changes
    if changes is None:
        return
    for text in dict.fromkeys(WATCHED.values()):
        keys = tuple(key for key in WATCHED if WATCHED[key] == text)
        found = [one for one in changes.params if any(f"{one.key}.".startswith(f"{key}.") for key in keys)]
        if found:
            told = [f"{quoted(one.key)} {quoted(one.old, 40)} → {quoted(one.new, 40)}" for one in found]
            yield Line("warn", f"{text}: {listed(told, FEW)}")
    if failing := [one.table for one in changes.validation if one.now is False]:
        yield Line("bad", f"Tables that fail their checks: {_names(failing)}")
    other = [
        f"{quoted(one.package)} {quoted(one.new)}, here {quoted(one.here)}"
        for one in changes.versions
        if one.new != one.here
    ]
    if other:
        yield Line("bad", f"constraints.txt changed, and nothing ran with what it pins now: {listed(other, FEW)}")


def _effect_risks(review: Review) -> Iterator[Line]:
    effect = review.effect
    if effect is None or not effect.rows:
        return
    worse = [gain for gain in (*effect.classes, *effect.slices) if gain.trend == "worse"]
    if worse and effect.scores and _deciding(review, effect).trend != "worse":
        told = [f"{quoted(gain.name)} {interval(gain)}" for gain in sorted(worse, key=lambda gain: gain.gain)]
        yield Line("bad", f"Worse in part, though not as a whole: {listed(told, FEW)}")
    other_rows = effect.only_base or effect.only_head or effect.relabelled
    if other_rows:
        only = f"{effect.only_base:,} only in the base, {effect.only_head:,} only in the head"
        yield Line(
            "warn", f"The test rows differ: {only}, {effect.relabelled:,} relabelled; scores are on those of both"
        )
    if confident := sum(row.now_confidence >= CONFIDENT for row in effect.regressed.examples):
        yield Line("warn", f"{confident:,} of the rows listed as regressed have a confidence of {CONFIDENT:g} or more")
    grown = [figure for figure in effect.figures if figure.better == "lower" and _grown(figure)]
    for figure in grown if effect.rows >= LEAST_ROWS and not other_rows else [one for one in grown if one.unit]:
        yield Line("warn", f"{figure.name}: {number(figure.base, figure.unit)} → {number(figure.head, figure.unit)}")


def _grown(figure: Figure) -> bool:
    both = figure.base is not None and figure.head is not None
    return both and (figure.head or 0) > GROWN.get(figure.unit, math.inf) * (figure.base or 0)


def _other_risks(review: Review) -> Iterator[Line]:
    if unpinned := _unpinned(review):
        yield Line("warn", f"Sources without a pin, which may hold something else tomorrow: {_names(unpinned)}")
    if review.behind:
        yield Line(
            "warn", f"The head lacks {review.behind:,} commits of {quoted(review.asked_base)}, no part of this review"
        )
    if review.uncommitted:
        yield Line("warn", f"Not committed, so no part of this review: {_names(review.uncommitted)}")
    missing = [line for part in (review.changes, review.effect) if part for line in part.missing]
    for note in (*(f"not compared: {line}" for line in missing), *review.notes)[:NOTES]:
        yield Line("warn", unquoted(note))


def _unpinned(review: Review) -> list[str]:
    from pydantic import ValidationError

    from stages.common.params import IngestParams

    try:
        return list(IngestParams.model_validate(review.head.data.get("ingest")).unpinned)
    except ValidationError:  # params of another version of the project: the pipeline itself will say so
        return []


def _names(names: Iterable[object]) -> str:
    return listed([quoted(name) for name in names], FEW)
