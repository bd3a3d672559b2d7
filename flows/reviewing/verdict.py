"""What a review comes to, a sentence each: reproduced or not, the gates, better or worse, and the risks.

Foreign names stand between backticks in the sentences; pages show these as code.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from flows.reviewing.findings import Effect, Gain, Review
from stages.common.display import READ, display, listed
from stages.common.redact import redacted

NAME, LINE = 60, 200  # characters of a foreign name, of a line that another part wrote
FEW = 4  # names in a sentence
NOTES = 12  # of a review, at most
WATCHED = ("register.gates", "evaluate", "clean.split", "seed", "review")  # whose change nobody should overlook

Tone = Literal["good", "warn", "bad"]
TRENDS: dict[str, tuple[Tone, str]] = {"better": ("good", "Better"), "worse": ("bad", "Worse")}
Risks = Iterator[tuple[Tone, str]]


class Line(NamedTuple):
    """A sentence without its full stop, and how it is meant."""

    tone: Tone
    text: str


class Verdict(NamedTuple):
    """The three sentences that come first, and what else a reviewer should know, the most serious first."""

    headline: tuple[Line, Line, Line]
    risks: tuple[Line, ...] = ()


def verdict_of(review: Review) -> Verdict:
    """Return what a review comes to."""
    risks = [*_record_risks(review), *_effect_risks(review), *_other_risks(review)]
    ordered = sorted((Line(*risk) for risk in risks), key=lambda line: line.tone != "bad")
    return Verdict((_reproduced(review), _gates(review), _effect(review)), tuple(ordered))


def quoted(name: object, most: int = NAME) -> str:
    """Return a foreign name between backticks, of which it holds none itself."""
    return f"`{unquoted(name, most) or '–'}`"


def unquoted(text: object, most: int = LINE) -> str:
    """Return a line in which nothing is code."""
    return display(redacted(str(text)[: most * READ]).replace("`", "'"), most, None).strip()


def interval(gain: Gain) -> str:
    """Return `+0.0123 [+0.0031, +0.0215]`."""
    return f"{gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def confidence_of(review: Review) -> str:
    """Return the confidence of the intervals: `95 %`."""
    params = review.head.params
    return f"{100 * (params.evaluate.bootstrap.confidence if params else 0.95):g} %"


def _reproduced(review: Review) -> Line:
    rebuild = review.rebuild
    counts = Counter(out.verdict for out in rebuild.outs)
    total, first, how = f"{len(rebuild.outs):,}", quoted(rebuild.first), f": {unquoted(rebuild.how)}"
    same, other = (f"{counts[kind]:,} of {total} outs" for kind in ("identical", "different"))
    sentences: dict[str, tuple[Tone, str]] = {
        "identical": ("good", f"Rebuilt from nothing: all {total} outs have the bytes that dvc.lock says"),
        "equal": ("good", f"Rebuilt from nothing, equal within the tolerance: {same} have the same bytes"),
        "different": ("bad", f"Not reproduced: {first} is the first stage that differs{how} ({other} differ)"),
        "failed": ("bad", f"Not rebuilt: {first} failed{how}"),
        "left out": ("warn", "Not rebuilt: that was left out, as asked"),
    }
    if rebuild.verdict in sentences:
        return Line(*sentences[rebuild.verdict])
    how = how if rebuild.how else ": there is no dvc.lock that can be read"
    if review.head.stale:
        how = f": dvc.lock is not of this code, params and data ({_names(review.head.stale)})"
    made = {"rebuilt": "those of the run from nothing", "run": "made by this review"}.get(review.head.results)
    below = f"; the results below are {made}" if made else ""
    return Line("warn", f"Nothing to compare a rebuild with{how}{below}")


def _gates(review: Review) -> Line:
    if not review.gates:
        nothing = "there are no results yet" if review.head.results == "none" else "no registration report names any"
        return Line("warn", f"Gates: not judged, {nothing}")
    failed = [gate for gate in review.gates if gate.get("passed") is not True]
    if not failed:
        return Line("good", f"Gates: all {len(review.gates)} passed")
    named = _names(gate.get("gate", "") for gate in failed)
    return Line("bad", f"Gates: {len(failed)} of {len(review.gates)} failed: {named}")


def _effect(review: Review) -> Line:
    effect = review.effect
    if effect is None or not effect.scores:
        base = f"{quoted(review.asked_base)} has no results" if review.base is None else "one side has no predictions"
        return Line("warn", f"Not compared: {review.failure or (effect.missing[0] if effect else base)}")
    rows = f"on the {effect.rows:,} test rows that both have"
    if not (effect.improved.total or effect.regressed.total or effect.moved):
        return Line("good", f"Same: every prediction is the same {rows}")
    gain = _deciding(review, effect)
    score = f"{effect.spec.score(gain.name).title} {interval(gain)} with {confidence_of(review)} confidence {rows}"
    changed = f"{effect.improved.total:,} rows improved, {effect.regressed.total:,} regressed"
    tone, outcome = TRENDS.get(gain.trend, ("warn", "No clear difference"))
    return Line(tone, f"{outcome}: {score}; {changed}")


def _deciding(review: Review, effect: Effect) -> Gain:
    """Return the score that decides: that of the champion's gate, or else the task's main one."""
    params, gains = review.head.params, {gain.name: gain for gain in effect.scores}
    return gains[params.champion_metric if params else effect.spec.main.name]


def _record_risks(review: Review) -> Risks:
    base = review.base
    if review.head.stale:
        stages = listed([f"{quoted(name)} ({quoted(why, 100)})" for name, why in review.head.stale.items()], FEW)
        yield "bad", f"dvc.lock is not of this code, params and data: {stages}; `make run`, then commit"
    if base and base.stale:
        yield "warn", f"The base's dvc.lock is not of its own code, params and data: {_names(base.stale)}"
    if base and base.results == "run":
        yield "warn", "The base's results were made by this review, as they are in neither DVC's cache nor a remote"
    machine = [f"{quoted(name)} {quoted(old)} → {quoted(new)}" for name, old, new in review.rebuild.environment]
    if machine:
        yield "warn", f"Rebuilt in another environment than it was recorded in: {', '.join(machine)}"
    settings = [
        f"{quoted(key)} {quoted(old, 40)} → {quoted(new, 40)}"
        for key, old, new, _ in (review.changes.params if review.changes else ())
        if f"{key}.".startswith(tuple(f"{watched}." for watched in WATCHED))
    ]
    if settings:
        yield "warn", f"What a model is judged by changed: {listed(settings, FEW)}"


def _effect_risks(review: Review) -> Risks:
    effect = review.effect
    if effect is None or not effect.scores:
        return
    worse = [gain for gain in (*effect.parts, *effect.slices) if gain.trend == "worse"]
    if worse and _deciding(review, effect).trend != "worse":
        parts = [f"{quoted(gain.name)} {interval(gain)}" for gain in sorted(worse, key=lambda gain: gain.gain)]
        yield "bad", f"Worse in part, though not as a whole: {listed(parts, FEW)}"
    if effect.only_base or effect.only_head or effect.relabelled:
        only = f"{effect.only_base:,} only in the base, {effect.only_head:,} only in the head"
        yield "warn", f"The test rows differ: {only}, {effect.relabelled:,} relabelled; scores are on those of both"


def _other_risks(review: Review) -> Risks:
    if review.behind:
        yield "warn", f"The head lacks {review.behind:,} commits of {quoted(review.asked_base)}, no part of this review"
    if review.uncommitted:
        yield "warn", f"Not committed, so no part of this review: {_names(review.uncommitted)}"
    missing = [line for part in (review.changes, review.effect) if part for line in part.missing]
    for note in (*(f"not compared: {line}" for line in missing), *review.notes)[:NOTES]:
        yield "warn", unquoted(note)


def _names(names: Iterable[object]) -> str:
    return listed([quoted(name) for name in names], FEW)
