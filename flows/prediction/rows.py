"""The rows to predict, a chunk at a time: out of a file, or out of a database that is opened for reading alone."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

import polars as pl

from flows.prediction.formats import damage_told, jsonl_rows, parquet_source, separated_rows, told
from flows.prediction.source import Source, Wanted, filled, picked
from stages.common.databases import select
from stages.common.delimited import header_of
from stages.common.errors import AttuneError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
DATABASE = "sql:"  # before the name of an environment variable


@contextmanager
def open_source(given: str, wanted: Wanted) -> Iterator[Source]:
    """Open a file, or a database as `sql:VARIABLE`.

    Raises:
        AttuneError: if it is not there, not readable or lacks a column; later, if a row is damaged, with its line.
    """
    if given.startswith(DATABASE):
        yield _database(given, wanted)
        return
    path = Path(given)
    *_, last = [suffix.lower() for suffix in path.suffixes] or [""]
    compression = COMPRESSIONS.get(last)
    kind = FORMATS.get(Path(path.stem).suffix.lower() if compression else last)
    if kind is None:
        raise AttuneError(
            f"{given}: the name tells no format",
            f"name a file that ends in {', '.join(FORMATS)} (the texts among them also .gz, .bz2 or .zst), "
            f"or a database as {DATABASE}VARIABLE",
        )
    if not path.is_file():
        raise AttuneError(f"{given} is {'no file' if path.exists() else 'missing'}", "name a file with one row a text")
    with path.open("rb") as file:
        if kind == "parquet":
            yield parquet_source(file, given, wanted)
            return
        stream: Any = file
        if compression:
            from pyarrow import CompressedInputStream, PythonFile  # type: ignore[import-untyped]

            stream = CompressedInputStream(PythonFile(file), compression)
        with TextIOWrapper(BufferedReader(stream), encoding="utf-8-sig", newline="") as text:
            source = Source(given, None, file=file, size=path.stat().st_size)
            if kind == "jsonl":
                source.chunks = told(given, jsonl_rows(text, source, wanted))
            else:
                separator = "\t" if kind == "tsv" else wanted.separator
                reader = csv.reader(text, delimiter=separator, strict=True)
                with damage_told(given):
                    source.columns = header_of(reader, given, lambda _: "say --separator")
                source.chunks = told(given, separated_rows(reader, source, wanted))
            yield source


def _database(given: str, wanted: Wanted) -> Source:
    if not wanted.query:
        raise AttuneError(f"{given} is a database", "say what to read of it: --table NAME, or --query 'SELECT …'")
    chunks = select(given.removeprefix(DATABASE), wanted.query, given, wanted.size)
    first = next(chunks)
    source = Source(given, first.columns)
    names = wanted.names(source)

    def frames() -> Iterator[pl.DataFrame]:
        yield picked(first, names)
        yield from (picked(chunk, names) for chunk in chunks)

    source.chunks = filled(frames(), wanted.size)
    return source


def table_query(name: str) -> str:
    """Return the query for a whole table.

    Raises:
        AttuneError: if it is no plain name.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", name):
        raise AttuneError(f"--table {name!r} is no plain name", "write it as the database wants it: --query 'SELECT …'")
    return f"SELECT * FROM {name}"  # noqa: S608, a name alone
