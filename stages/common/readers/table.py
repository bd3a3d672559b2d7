"""What every reader of a file or database offers, and what they have in common."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any, Protocol

import polars as pl

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.readers.streams import BATCH_BYTES, ROWS, Layout

LINE = "line"  # name of the only column of a plain text file
NAME = 60  # characters of a column's name in a message: without a header, the first row is taken for names


class Table(Protocol):
    """An open table."""

    origin: str  # what messages call it
    columns: list[str]  # of JSON lines, whose rows have keys of their own, those of the rows read so far
    fixed: bool = True  # whether all names are known before the first row is read
    without_text: Mapping[str, str] = {}  # further columns, with what they hold that has no form as text
    label_names: Mapping[str, Mapping[str, str]] = {}  # columns of numbers, with the label that each stands for
    rows: int | None = None  # how many there are, where that is known
    share: Callable[[], float] | None = None  # how much of the file has been read, where that is known
    group: str | None = None  # of all its rows, where it is one of several files of plain lines

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """Yield the rows with these columns, at most `size` at a time; a table without rows has one empty batch.

        An AttuneError if a row is damaged, with its line where there are lines.
        """


def packed(rows: Iterable[Sequence[str | None]], names: Sequence[str], size: int) -> Iterator[pl.DataFrame]:
    """Yield rows of texts as tables: polars needs a third of the memory that Python does for a text.

    A table ends after `size` rows or BATCH_BYTES; without rows there is one that has none.
    """
    waiting: list[Sequence[str | None]] = []
    schema, characters, empty = dict.fromkeys(names, pl.String), 0, True
    for row in rows:
        waiting.append(row)
        characters += sum(map(len, filter(None, row)))
        if len(waiting) == size or characters >= BATCH_BYTES:
            yield pl.DataFrame(waiting, schema=schema, orient="row")
            waiting, characters, empty = [], 0, False
    if waiting or empty:
        yield pl.DataFrame(waiting, schema=schema, orient="row")


def check_unique(names: Sequence[str], where: str) -> None:
    """Raise AttuneError if two columns have one name."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise AttuneError(f"{where}: the column {display(repeated[0], NAME)!r} is there twice", "rename one of them")


def as_text(value: Any) -> str | None:
    """Return a text as it is, other values as JSON has them, and null for what is empty or NaN.

    A lone surrogate, which JSON can spell and drivers may pass on, is replaced: it is no character.
    """
    if value is None or value == "" or (isinstance(value, float) and isnan(value)):
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")


class LinesTable(Table):
    """A text a line. Only \\n and \\r\\n end one: `str.splitlines` would also cut at U+2028 and the like."""

    def __init__(self, lines: Iterator[str], origin: str, layout: Layout) -> None:
        self.origin, self.columns, self.lines = origin, [LINE] if self.fixed else [], lines

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        return packed(self._values(names), names, size)

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        for line in self.lines:
            yield [line.removesuffix("\n").removesuffix("\r") or None] * len(names)
