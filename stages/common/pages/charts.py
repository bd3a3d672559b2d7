"""Coordinates of the charts on the pages; templates turn them into SVG and boxes."""

from collections.abc import Mapping, Sequence
from math import ceil, log10
from typing import NamedTuple

SIDE = 200.0  # of a square chart, in its own units
MOST_POINTS, MOST_DOTS = 400, 12  # of a line; more cannot be told apart

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """One line of a chart."""

    name: str  # for the legend
    css: str  # class that gives its colour
    points: str  # for an SVG polyline in a square of SIDE
    dots: list[tuple[float, float]]  # the points as shares of the square, left and top; empty: too many to draw each


class Chart(NamedTuple):
    """Lines over each other, and what stands at both ends of both axes."""

    x: str
    y: str
    lines: list[Line]
    across: list[str]
    up: list[str]


class Range(NamedTuple):
    """An interval with its middle, as shares of the width of the axis that all intervals of a plot are drawn on."""

    low: float
    middle: float
    high: float


def line(name: str, css: str, x: Sequence[float], y: Sequence[float], dots: bool = False) -> Line:
    """Return the line through points of the unit square."""
    shares = [(float(left), 1 - float(up)) for left, up in zip(x, y, strict=True)]
    points = " ".join(f"{SIDE * left:.1f},{SIDE * top:.1f}" for left, top in shares)
    return Line(name, css, points, shares if dots else [])


class Axis(NamedTuple):
    """A range of numbers that intervals are drawn on, with a few round marks."""

    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], step: float = 0.05, least: float = 0.0, most: float = 1.0) -> "Axis":
        """Return the axis from the round number below all values to the one above."""
        start = max(least, (min(values) + 1e-9) // step * step)
        end = min(most, -((-max(values) + 1e-9) // step) * step)
        return cls(min(start, end - step), end)

    def place(self, value: float) -> float:
        """Return where a value is, 0 at the start and 1 at the end."""
        return min(1.0, max(0.0, (value - self.start) / (self.end - self.start)))

    def range(self, low: float, middle: float, high: float) -> Range:
        """Return where an interval is."""
        return Range(self.place(low), self.place(middle), self.place(high))

    def marks(self, count: int = 5) -> list[str]:
        """Return what stands along the axis, from start to end."""
        step = (self.end - self.start) / (count - 1)
        digits = max(2, ceil(-log10(step)))
        return [f"{self.start + step * index:.{digits}f}" for index in range(count)]


def chart(x: str, y: str, lines: Mapping[str, Points]) -> Chart:
    """Return lines by their names, which are their classes as well, on axes from the least to the largest value."""
    axes = []
    for values in zip(*(point for points in lines.values() for point in points), strict=True):
        low, high = min(values), max(values)
        axes.append(Axis(low, high if high > low else low + (abs(low) or 1)))
    drawn = []
    for name, points in lines.items():
        some = points[:: len(points) // MOST_POINTS + 1]
        across, up = ([axis.place(point[index]) for point in some] for index, axis in enumerate(axes))
        drawn.append(line(name, name, across, up, dots=len(some) <= MOST_DOTS))
    return Chart(x, y, drawn, *([f"{axis.start:.4g}", f"{axis.end:.4g}"] for axis in axes))


def wilson(share: float, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many rows (Wilson 1927): sound for few rows and for 0 and 1."""
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
