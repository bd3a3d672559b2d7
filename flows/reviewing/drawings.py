"""What is drawn on the page of a review: curves, intervals on one axis, and how two confusion matrices differ."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.reviewing.findings import Curve, Effect, Gain
from stages.common.pages.charts import Axis, Line, Range, line

CELLS = 12  # labels of the confusion matrix; points that are drawn as dots, too
POINTS = 400  # of a line; more cannot be told apart


class Chart(NamedTuple):
    """Two lines over each other, with (place, label) of marks along both axes."""

    name: str
    x: str
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]


def chart(curve: Curve, unit: bool = False) -> Chart:
    """Return both sides of a curve on the same axes, in the unit square if asked."""
    points = (*curve.base, *curve.head)
    across, up = (_axis([0.0, 1.0] if unit else [point[at] for point in points]) for at in (0, 1))
    lines = []
    for name, whole in (("base", curve.base), ("head", curve.head)):
        side = whole[:: math.ceil(len(whole) / POINTS) or 1]
        x, y = [across.place(x) for x, _ in side], [up.place(y) for _, y in side]
        lines.append(line(name, name, x, y, dots=len(side) <= CELLS))
    return Chart(curve.name, curve.x, tuple(lines), _marks(across), _marks(up))


def intervals(gains: Sequence[Gain]) -> tuple[tuple[Range, ...], str]:
    """Return the intervals of gains on one axis with 0 in its middle, and what stands along it."""
    ends = [abs(end) for gain in gains for end in (gain.low, gain.gain, gain.high) if math.isfinite(end)]
    most = _round_up(max(ends, default=0.0) or 0.01)
    axis = Axis(-most, most)
    return tuple(axis.range(gain.low, gain.gain, gain.high) for gain in gains), f"{-most:+g} … {most:+g}"


def confusion_difference(effect: Effect) -> list[tuple[str, list[tuple[str, int, int, int]]]]:
    """Return (label, [(prediction, difference, base, head)]) of the labels that differ most."""
    difference = effect.confusion_head - effect.confusion_base
    weight = np.abs(difference).sum(axis=0) + np.abs(difference).sum(axis=1)
    chosen = sorted(int(at) for at in np.argsort(-weight, kind="stable")[:CELLS] if weight[at])

    def cell(row: int, at: int) -> tuple[str, int, int, int]:
        numbers: Any = (matrix[row, at] for matrix in (difference, effect.confusion_base, effect.confusion_head))
        return effect.labels[at], *map(int, numbers)  # type: ignore[return-value]

    return [(effect.labels[row], [cell(row, at) for at in chosen]) for row in chosen]


def _axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = _round_up((high - low) / 4)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def _marks(axis: Axis) -> tuple[tuple[float, str], ...]:
    step = _round_up((axis.end - axis.start) / 5)
    count = round((axis.end - axis.start) / step)
    return tuple((at / count, f"{axis.start + at * step:.4g}") for at in range(count + 1))


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= value * (1 - 1e-9))
