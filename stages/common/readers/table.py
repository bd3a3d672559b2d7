"""What every reader of a table offers, and values as text: the same whatever format or database they come from."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from stages.common.errors import AttuneError

ROWS = 50_000  # of a batch
BATCH_BYTES = 32 << 20  # of texts, about, at which a batch ends even if it has fewer rows
CELL = 16  # bytes that polars needs for a text besides its characters


class Table:
    """An open table, of chunks of rows unless a format has batches of its own.

    Attributes:
        origin: what messages call it.
        columns: the names; of JSON lines, whose rows have keys of their own, those of the rows read so far.
        fixed: whether all names are known before the first row is read.
        rows: how many there are, where that is known.
        share: how much of the file has been read, where that is known.
    """

    fixed = True
    rows: int | None = None
    share: Callable[[], float] | None = None

    def __init__(self, origin: str, columns: list[str], chunks: Iterable[pl.DataFrame] = ()) -> None:
        self.origin, self.columns, self._chunks = origin, columns, chunks

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """Yield the rows with these columns, at most `size` at a time; a table without rows has one empty batch.

        Raises:
            AttuneError: if a row is damaged, with its line where there are lines.
        """
        for chunk in self._chunks:
            rows = columns_of(chunk, names)
            yield from rows.iter_slices(size) if rows.height else [rows]


def check_unique(names: Sequence[str], where: str) -> None:
    """Raise AttuneError if two columns have one name."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise AttuneError(f"{where}: the column {twice[0]!r} is there twice", "rename one of them")


def as_text(value: Any) -> str | None:
    """Return a text as it is, other values as JSON has them, and null for what is empty.

    A lone surrogate, which JSON can spell and drivers may pass on, is replaced: it is no character.
    """
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")


def text_bytes(frame: pl.DataFrame) -> int:
    """Return the bytes that a table of texts needs."""
    if not frame.width:
        return 0
    texts = frame.select(pl.all().str.len_bytes().cast(pl.Int64).sum()).row(0)
    return sum(size or 0 for size in texts) + CELL * frame.height * frame.width


def columns_of(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Return some columns, each by its very name: to `select`, `*` and `^t.*$` are patterns."""
    return pl.DataFrame({name: frame.get_column(name) for name in names})
