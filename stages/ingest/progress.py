"""How far a download is: a bar on a terminal, a line now and then elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY = 256 << 20  # bytes


@contextmanager
def shown(what: str, done: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the bytes of each block.

    Args:
        what: name of what comes; free of secrets.
        done: bytes that are here already.
        total: bytes in all, if known.
    """
    of = f" of {total / 2**20:,.1f} MiB" if total is not None else ""
    if not sys.stderr.isatty():
        here = f", {done / 2**20:,.1f} MiB are here already" if done else ""
        print(f"downloading {what}{of.removeprefix(' of') and f' ({of[4:]})'}{here} …", flush=True)

        def line(count: int) -> None:
            nonlocal done
            if done // LINE_EVERY != (done + count) // LINE_EVERY:
                print(f"  {(done + count) / 2**20:,.0f} MiB{of}", flush=True)
            done += count

        yield line
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(f"downloading {escape(what)}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda count: bar.advance(task, count)
