"""Files to chunks of rows. A broken row is an error with its line, and never a shorter table.

Polars' own batches (`collect_batches`) were tried: they read ahead of a slow consumer, so that ten times the rows took
five times the memory, and short rows of a CSV file are filled up in silence. A model is slower than any reader here.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import polars as pl

from flows.prediction.source import Source, Wanted, check_columns, filled, picked
from stages.common.delimited import full_rows
from stages.common.errors import AttuneError
from stages.common.shown import shown


def told(origin: str, chunks: Iterator[Any]) -> Iterator[Any]:
    """Pass on what comes, and damage as something that a person can mend."""
    with damage_told(origin):
        yield from chunks


@contextmanager
def damage_told(origin: str) -> Iterator[None]:
    """Tell of bytes that cannot be read as an AttuneError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise AttuneError(
            f"{origin}: byte 0x{error.object[error.start]:02x} is not UTF-8", "save the file as UTF-8"
        ) from None
    except (OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise AttuneError(f"{origin}: cannot be decompressed ({error})", "copy or download the file again") from None


def separated_rows(reader: Any, source: Source, wanted: Wanted) -> Iterator[pl.DataFrame]:
    """Read what is left of a file with separators, `wanted.size` rows at a time."""
    header = source.columns or []
    names = wanted.names(source)
    place_of = {name: place for place, name in enumerate(header)}
    places = [place_of[name] for name in names]
    rows: list[list[str | None]] = []
    for row in full_rows(reader, header, source.origin, "say --separator"):
        rows.append([row[place] or None for place in places])
        if len(rows) == wanted.size:
            yield _texts(rows, names)
            rows.clear()
    yield _texts(rows, names)


def jsonl_rows(lines: Iterable[str], source: Source, wanted: Wanted) -> Iterator[pl.DataFrame]:
    """Read an object a line; keys that a row lacks are null."""
    names = wanted.names(source)
    rows: list[list[str | None]] = []
    keys: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AttuneError(f"{source.origin}:{number}: not JSON: {error}", "each line is one JSON object") from None
        if not isinstance(row, dict):
            raise AttuneError(f"{source.origin}:{number}: a JSON {type(row).__name__}", "each line is one JSON object")
        for name in (wanted.text, wanted.text_pair):
            if name and not isinstance(row.get(name), str | None):
                raise AttuneError(f"{source.origin}:{number}: {name!r} is no text", "write it as one, in quotes")
        keys |= dict.fromkeys(row)
        rows.append([_as_text(row.get(name)) for name in names])
        if len(rows) == wanted.size:
            if source.columns is None:
                source.columns = list(keys)
                check_columns(source.origin, names, source.columns)
            yield _texts(rows, names)
            rows.clear()
    if source.columns is None and rows:
        check_columns(source.origin, names, list(keys))
    yield _texts(rows, names)


def _as_text(value: Any) -> str | None:
    """Return a text as it is, and other values as JSON. A lone surrogate, which JSON can spell, is no character."""
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def _texts(rows: list[list[str | None]], names: list[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def parquet_source(file: IO[bytes], origin: str, wanted: Wanted) -> Source:
    """Open a Parquet file; pyarrow reads it page by page."""
    from pyarrow import ArrowException  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        opened = ParquetFile(file)
    except (ArrowException, OSError) as error:
        raise AttuneError(
            f"{origin}: not a readable Parquet file ({_first(error)})", "write or copy it again"
        ) from None
    columns = list(opened.schema_arrow.names)
    if twice := [name for name, times in Counter(columns).items() if times > 1]:
        raise AttuneError(f"{origin}: the column {twice[0]!r} is there twice", "rename one of them")
    source = Source(origin, columns, total=opened.metadata.num_rows)
    names = wanted.names(source)

    def frames() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame(pl.from_arrow(opened.schema_arrow.empty_table().select(names)))
        try:
            for batch in opened.iter_batches(wanted.size, columns=names, use_threads=False):
                yield picked(pl.DataFrame(pl.from_arrow(batch)), names)
        except (ArrowException, OSError) as error:
            raise AttuneError(f"{origin}: damaged ({_first(error)})", "write or copy it again") from None

    source.chunks = filled((_plain(frame) for frame in frames()), wanted.size)
    return source


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with each column of categories as the texts that they stand for."""
    return pl.DataFrame(
        [
            column.cast(pl.String) if isinstance(column.dtype, pl.Categorical | pl.Enum) else column
            for column in frame.get_columns()
        ]
    )


def _first(error: Exception) -> str:
    return shown((str(error).splitlines() or [type(error).__name__])[0], 160)
