"""How far the predictions are: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.prediction.source import Source

LINE_EVERY = 10.0  # seconds


@contextmanager
def progress(source: Source) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the rows that are done, and how many of these were predicted just now."""
    pace = _Pace(source)
    if not sys.stderr.isatty():
        yield pace.line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("predicting"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(done: int, new: int) -> None:
            bar.update(task, completed=pace.share(done), description=pace.told(done, new))

        yield show


class _Pace:
    def __init__(self, source: Source) -> None:
        self._source, self._begun, self._said, self._new = source, time.monotonic(), time.monotonic(), 0

    def share(self, done: int) -> float:
        """Return how much of the input is done; 0 where nobody knows."""
        return done / self._source.total if self._source.total else self._source.share() or 0.0

    def told(self, done: int, new: int) -> str:
        """Say how many rows are done, how fast, and how long it will take."""
        self._new += new
        rate = self._new / max(time.monotonic() - self._begun, 1e-6)
        share = self.share(done)
        left = done * (1 - share) / share / rate if share and rate else None
        soon = f", {_duration(left)} left" if left is not None else ""
        return (
            f"{done:,} rows, {share:.0%}{soon}, {rate:,.0f} rows/s" if share else f"{done:,} rows, {rate:,.0f} rows/s"
        )

    def line(self, done: int, new: int) -> None:
        """Print a line, if the last one was long ago."""
        told = self.told(done, new)
        if time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            print(f"  {told}", flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
