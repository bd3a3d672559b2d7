"""Places of the drawings on the page of a review; the template turns them into SVG and boxes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.reviewing.findings import Curve, Gain
from stages.common.pages.charts import Axis, Line, Range, line

DOTS = 12  # points up to this many are drawn as dots, too
POINTS = 400  # of a line; more cannot be told apart
CELLS = 12  # labels of the confusion matrix


@dataclass(frozen=True)
class Mark:
    """A number on an axis and where it stands, 0 to 1."""

    place: float
    label: str


@dataclass(frozen=True)
class Whiskers:
    """Gains on one axis with 0 in its middle; `ranges` has None for a gain that is no number."""

    gains: tuple[Gain, ...]
    ranges: tuple[Range | None, ...]
    marks: tuple[Mark, ...]
    more: int


@dataclass(frozen=True)
class Drawing:
    """Two lines over each other, base and head, with marks along both axes."""

    name: str
    x: str
    lines: tuple[Line, ...]
    across: tuple[Mark, ...]
    up: tuple[Mark, ...]
    last: tuple[float | None, float | None]


@dataclass(frozen=True)
class Heat:
    """Head - base of two confusion matrices: of the labels that differ most, in their order."""

    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[int, int, int, float], ...], ...]  # base, head, difference, its share of the largest
    more: int


def whiskers(gains: Sequence[Gain], listed: int) -> Whiskers:
    """Return so many gains on one axis that reaches as far to the left as to the right."""
    chosen = tuple(gains[:listed])
    ends = [abs(end) for gain in chosen for end in (gain.low, gain.high, gain.gain) if math.isfinite(end)]
    most = _round_up(max(ends, default=0.0) or 0.01)
    axis = Axis(-most, most)
    ranges = tuple(
        axis.range(gain.low, gain.gain, gain.high)
        if all(map(math.isfinite, (gain.low, gain.gain, gain.high)))
        else None
        for gain in chosen
    )
    marks = tuple(Mark(place, f"{at:+g}" if at else "0") for place, at in ((0.0, -most), (0.5, 0.0), (1.0, most)))
    return Whiskers(chosen, ranges, marks, len(gains) - len(chosen))


def drawing(curve: Curve, unit: bool = False) -> Drawing:
    """Return both sides of a curve on the same axes, in the unit square if asked; what is no number is left out."""
    sides = {"head": _finite(curve.head), "base": _finite(curve.base)}
    points = [point for side in sides.values() for point in side]
    across, up = (_axis([point[at] for point in points], unit) for at in (0, 1))
    lines = tuple(
        line(
            name,
            name,
            [across.place(x) for x, _ in side],
            [up.place(y) for _, y in side],
            dots=len(side) <= DOTS,
        )
        for name, side in sides.items()
        if side
    )
    last = tuple(side[-1][1] if side else None for side in (sides["base"], sides["head"]))
    return Drawing(curve.name, curve.x, lines, _marks(across), _marks(up), (last[0], last[1]))


def heat(labels: Sequence[str], base: np.ndarray, head: np.ndarray) -> Heat | None:
    """Return the difference of two confusion matrices [actual x predicted], at most CELLS labels wide; None: none.

    Labels of which nothing differs are left out.
    """
    difference = head - base
    if not difference.any():
        return None
    weight = np.abs(difference).sum(axis=0) + np.abs(difference).sum(axis=1)
    changed = [at for at in range(len(labels)) if weight[at]]
    chosen = sorted(sorted(changed, key=lambda at: (-int(weight[at]), at))[:CELLS])
    most = max(1, int(np.abs(difference).max(initial=0)))
    rows = tuple(
        tuple(
            (int(base[row, at]), int(head[row, at]), int(difference[row, at]), abs(int(difference[row, at])) / most)
            for at in chosen
        )
        for row in chosen
    )
    return Heat(tuple(labels[at] for at in chosen), rows, len(labels) - len(chosen))


def bars(files: Sequence[tuple[str, int | None, int | None]], most: int) -> dict[str, Any]:
    """Return the lines added and removed in files, and the widths of their bars as shares of `most` lines."""
    added, removed = sum(one[1] or 0 for one in files), sum(one[2] or 0 for one in files)
    return {"added": added, "removed": removed, "plus": added / max(1, most), "minus": removed / max(1, most)}


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found = [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    step = max(1, math.ceil(len(found) / POINTS))
    return [*found[::step], *(found[-1:] if (len(found) - 1) % step else [])]


def _axis(values: Sequence[float], unit: bool) -> Axis:
    if unit or not values:
        return Axis(0.0, 1.0)
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    step = _round_up((high - low) / 4)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def _marks(axis: Axis) -> tuple[Mark, ...]:
    """Return a mark at every round number of an axis that begins and ends with one."""
    step = _round_up((axis.end - axis.start) / 5)
    count = round((axis.end - axis.start) / step)
    return tuple(Mark(axis.place(axis.start + at * step), f"{axis.start + at * step:.6g}") for at in range(count + 1))


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= value * (1 - 1e-9))
