"""Where rows come from, and which of their columns are wanted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

import polars as pl

from stages.common.errors import AttuneError
from stages.common.shown import shown

NAMED = 12  # columns that a message lists


@dataclass
class Source:
    """Where rows come from.

    Args:
        origin: what messages call it.
        columns: names; None: known row by row (JSON lines).
        chunks: rows in order, each chunk with as many as were asked for but for the last, which may have none.
        total: rows, where that is known.
        file, size: what is read, and its bytes, to tell how far it is.
    """

    origin: str
    columns: list[str] | None
    chunks: Iterator[pl.DataFrame] = field(default_factory=lambda: iter(()))
    total: int | None = None
    file: IO[bytes] | None = None
    size: int = 0

    def share(self) -> float | None:
        """Return how much of the file has been read, if it is one."""
        return self.file.tell() / self.size if self.file and self.size else None


@dataclass(frozen=True)
class Wanted:
    """Which columns of the input are read, and how.

    Args:
        text, text_pair, id: column of each; no id: rows are numbered.
        text_else: column of the texts where there is none called `text`.
        keep: columns that are copied to the output.
        keep_all: all are.
        separator: of a CSV file.
        query: what to read of a database.
        size: rows of a chunk.
    """

    text: str = "text"
    text_else: str | None = None
    text_pair: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()
    keep_all: bool = False
    separator: str = ","
    query: str = ""
    size: int = 2_048

    def names(self, source: Source) -> list[str]:
        """Return the columns to read, each once.

        Raises:
            AttuneError: if one of them is not there.
        """
        if self.keep_all and source.columns is None:
            raise AttuneError(
                f"{source.origin}: rows of JSON lines need not have the same keys, so --keep-all cannot tell which",
                "name them: --keep KEY --keep OTHER",
            )
        named = [self.text_in(source.columns), *(name for name in (self.text_pair, self.id) if name)]
        named += self.kept(source)
        if source.columns is not None:
            check_columns(source.origin, named, source.columns)
        return list(dict.fromkeys(named))

    def kept(self, source: Source) -> list[str]:
        """Return the columns to copy, each once; of all, that of the ids is left out: the output has it."""
        if not self.keep_all:
            return list(dict.fromkeys(self.keep))
        return [name for name in source.columns or [] if name != self.id or name in self.keep]

    def text_in(self, columns: list[str] | None) -> str:
        """Return which of these columns holds the texts."""
        other = self.text_else if columns and self.text not in columns and self.text_else in columns else None
        return other or self.text


def check_columns(origin: str, named: Iterable[str], there: list[str]) -> None:
    """Raise an AttuneError if one of the columns is not there."""
    known = set(there)
    if missing := [name for name in named if name not in known]:
        listed = ", ".join(shown(repr(name), 40) for name in there[:NAMED]) + ", …" * (len(there) > NAMED)
        raise AttuneError(
            f"{origin} has no column {missing[0]!r}; it has {listed or 'none'}",
            "name the columns with --text, --text-pair, --id and --keep",
        )


def picked(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Return some columns, each by its very name: to `select`, `*` and `^t.*$` are patterns."""
    columns = dict(zip(frame.columns, frame.get_columns(), strict=True))
    return pl.DataFrame({name: columns[name] for name in names})


def filled(frames: Iterator[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """Yield the same rows in chunks of this size; the first frame tells the columns."""
    waiting = next(frames)
    for frame in frames:
        waiting = pl.concat([waiting, frame])
        while waiting.height >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    yield waiting
