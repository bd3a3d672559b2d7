"""Section 3 of the comment: what the change did."""

from collections.abc import Iterator, Sequence

import numpy as np

from flows.reviewing.findings import Curve, Effect, Figure, Flip, Flips, Gain, Review
from flows.reviewing.pages.score import percent_of
from flows.reviewing.pages.shown_parts import Parts
from flows.reviewing.pages.wording import counted, grown, interval, number, trend_of
from flows.told.markdown import folded


def effect_section(review: Review, parts: Parts) -> Iterator[str]:
    """Yield the blocks of the section."""
    effect = review.effect
    if effect is None:
        yield "Nothing to compare: predictions of both sides are needed."
        return
    others = f"{effect.only_base:,} only in the base, {effect.only_head:,} only in the head"
    if not effect.rows:
        yield "No row could be compared:\n\n" + parts.lines(effect.missing or ("no test row is in both",))
        return
    yield (
        f"On the {counted(effect.rows, 'test row')} that both share ({others}, {effect.relabelled:,} relabelled). "
        f"Gains with {percent_of(review)} intervals of the paired bootstrap; McNemar's p {effect.mcnemar_p:.3g}."
    )
    yield _gains("score", effect.scores, parts)
    if effect.classes:
        yield folded(f"F1 by class: {_trends(effect.classes)}", _gains("class", effect.classes, parts))
    if effect.slices:
        yield folded(f"Accuracy by slice: {_trends(effect.slices)}", _gains("slice", effect.slices, parts))
    flips = f"{effect.fixed.count:,} fixed, {effect.broken.count:,} broken"
    yield f"**Rows** – {flips}, {effect.moved:,} wrong in another way."
    yield from _flips("Fixed", effect.fixed, parts)
    yield from _flips("Broken", effect.broken, parts)
    yield from _confusion(effect, parts)
    yield from _figures("Calibration", effect.calibration, parts)
    yield from _figures("Size and speed", effect.costs, parts)
    yield from _curves(effect.curves, parts)
    if effect.missing:
        yield "Not compared:\n\n" + parts.lines(effect.missing)


def _gains(what: str, gains: Sequence[Gain], parts: Parts) -> str:
    def row(one: Gain) -> tuple[str, ...]:
        gain = "same" if one.trend == "same" else interval(one)
        return parts.name(one.name, 80), f"{one.base:.4f}", f"{one.head:.4f}", gain, one.trend, f"{one.rows:,}"

    return parts.table((what, "base", "head", "gain [interval]", "", "rows"), "lrrrlr", gains, row, what)


def _trends(gains: Sequence[Gain]) -> str:
    counts = {trend: sum(one.trend == trend for one in gains) for trend in ("worse", "better", "unclear", "same")}
    return ", ".join(f"{count:,} {trend}" for trend, count in counts.items() if count)


def _flips(title: str, flips: Flips, parts: Parts) -> Iterator[str]:
    def row(one: Flip) -> tuple[str, ...]:
        text = parts.text(one.text) + (f"<br>{parts.text(one.text_pair)}" if one.text_pair else "")
        was, now = (f"{parts.name(said)} {sure:.2f}" for said, sure in (_was(one), _now(one)))
        return text, parts.name(one.label), was, now

    shown = flips.examples[: parts.listed]
    if shown:
        of = f"the first {len(shown):,} of {flips.count:,}" if len(shown) < flips.count else f"{flips.count:,}"
        table = parts.table(("text", "label", "base said", "head says"), "llll", shown, row)
        yield folded(f"{title}: {of}, the surest first", table)


def _was(flip: Flip) -> tuple[str, float]:
    return flip.was, flip.was_confidence


def _now(flip: Flip) -> tuple[str, float]:
    return flip.now, flip.now_confidence


def _confusion(effect: Effect, parts: Parts) -> Iterator[str]:
    difference = effect.confusion_head - effect.confusion_base
    cells = [(int(row), int(at)) for row, at in zip(*np.nonzero(difference), strict=True)]
    cells.sort(key=lambda cell: (-abs(int(difference[cell])), cell))

    def row(cell: tuple[int, int]) -> tuple[str, ...]:
        base, head = int(effect.confusion_base[cell]), int(effect.confusion_head[cell])
        names = (parts.name(effect.labels[at]) for at in cell)
        return *names, f"{base:,}", f"{head:,}", f"{head - base:+,}"

    if cells:
        body = parts.table(("label", "prediction", "base", "head", "difference"), "llrrr", cells, row, "cell")
        yield folded("What is taken for what: cells that differ, the largest first", body)


def _figures(title: str, figures: Sequence[Figure], parts: Parts) -> Iterator[str]:
    def row(one: Figure) -> tuple[str, ...]:
        values = number(one.base, one.unit), number(one.head, one.unit)
        return parts.said(one.name), *values, grown(one), trend_of(one) or "–"

    if figures:
        yield f"**{title}**\n\n" + parts.table(("", "base", "head", "change", ""), "lrrrl", figures, row, "figure")


def _curves(curves: Sequence[Curve], parts: Parts) -> Iterator[str]:
    def row(one: Curve) -> tuple[str, ...]:
        return parts.name(one.name), _last(one.base), _last(one.head), f"{len(one.head):,}"

    if curves:
        body = parts.table(("curve", "base ends at", "head ends at", "points"), "lrrr", curves, row, "curve")
        yield folded("Training curves (drawn over each other in review.html)", body)


def _last(points: Sequence[tuple[float, float]]) -> str:
    return number(points[-1][1]) if points else "–"
