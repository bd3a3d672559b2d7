"""The curves of the data page: how lengths and times are spread over each split, as points of an SVG."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.clean.timestamps import read_times
from stages.common.schemas import SPLITS

BINS = 30
DAY = 86_400_000_000  # microseconds
WIDTH, HEIGHT = 600.0, 160.0  # of the drawing, in its own units


@dataclass(frozen=True)
class Curves:
    """A line per split; `points` for an SVG polyline of WIDTH x HEIGHT."""

    points: dict[str, str]
    ticks: list[str]
    highest: str
    width: float = WIDTH
    height: float = HEIGHT


def lengths(splits: dict[str, pl.DataFrame]) -> Curves | None:
    """Return the share of each split's rows per bin of length in characters; the longest hundredth is in the last."""
    values = {name: splits[name]["text"].str.len_chars().to_numpy() for name in SPLITS}
    whole = np.concatenate(list(values.values()))
    if not len(whole):
        return None
    # whole numbers of characters per bin, or some bins would hold one length more than others
    step = max(1, int(np.ceil((np.quantile(whole, 0.99) + 1) / BINS)))
    edges = np.append(np.arange(BINS) * step, np.inf)
    ticks = [f"{at * step:,}" for at in range(0, BINS, 6)]
    shares = {name: np.histogram(found, edges)[0] / max(1, len(found)) for name, found in values.items()}
    highest = max(float(share.max()) for share in shares.values())
    return Curves(_points(shares, highest), [*ticks, f"{BINS * step:,}+"], f"{highest:.1%} of a split's rows")


def times(splits: dict[str, pl.DataFrame]) -> Curves | None:
    """Return the number of rows per bin of time, from the oldest to the newest; None without two different times."""
    read = {name: read_times(splits[name]["timestamp"])["time"].drop_nulls().to_physical() for name in SPLITS}
    whole = pl.concat(list(read.values())).to_numpy()
    if not len(whole) or whole.min() == whole.max():
        return None
    first, last = int(whole.min()), int(whole.max())
    marks = pl.Series(np.linspace(first, last, 6).astype(np.int64)).cast(pl.Datetime("us"))
    form = "%Y-%m" if last - first > 3 * 365 * DAY else "%Y-%m-%d" if last - first > 6 * DAY else "%m-%d %H:%M"
    edges = np.linspace(first, last, BINS + 1)
    counts = {name: np.histogram(found.to_numpy(), edges)[0] for name, found in read.items()}
    highest = max(int(found.max()) for found in counts.values())
    return Curves(_points(counts, highest), marks.dt.strftime(form).to_list(), f"{highest:,} rows of a split")


def _points(heights: dict[str, np.ndarray], highest: float) -> dict[str, str]:
    return {name: _steps(found / highest) for name, found in heights.items()}


def _steps(heights: np.ndarray) -> str:
    """Return the outline of a histogram: up, along, down to the next."""
    left = np.arange(len(heights)) * WIDTH / len(heights)
    right = left + WIDTH / len(heights)
    top = HEIGHT * (1 - 0.98 * heights)  # room for the line itself
    return " ".join(
        f"{start:.0f},{high:.1f} {end:.0f},{high:.1f}" for start, end, high in zip(left, right, top, strict=True)
    )
