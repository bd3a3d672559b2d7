"""How far the predictions are: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stages.common.readers.table import Table

LINE_EVERY = 10.0  # seconds


@contextmanager
def progress(table: Table) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with how many rows are done."""

    def share(done: int) -> float | None:
        return done / table.rows if table.rows else table.share() if table.share else None

    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(done: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY:
                last, part = time.monotonic(), share(done)
                print(f"  {done:,} rows" + (f", {part:.0%}" if part else ""), flush=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("predicting"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0 if share(0) is not None else None)
        yield lambda done: bar.update(task, completed=share(done), description=f"{done:,} rows")
