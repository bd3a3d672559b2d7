"""Files as batches of rows. A broken row is an error with its line, and never a shorter table.

CSV, TSV and JSON lines are read line by line, Parquet page by page, so that a file may be larger than the memory. (The
batches of polars itself, `collect_batches`, read ahead of a slow consumer, and its CSV reader fills up short rows.)
"""

import csv
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.errors import AttuneError
from stages.common.readers.parquet import ParquetTable
from stages.common.readers.streams import BLOCK, Layout, Spend, damage_as_error, decompressed, lines_of
from stages.common.readers.table import BATCH_BYTES, ROWS, Table, check_unique
from stages.common.readers.values import as_text

LINE = "line"  # name of the only column of a plain text file
SEPARATORS = ";\t|,"


@contextmanager
def open_table(
    path: Path, origin: str, layout: Layout, *, spend: Spend = lambda count: None, texts: bool = True
) -> Iterator[Table]:
    """Open a file to read its rows.

    Args:
        path: the file.
        origin: what messages call it.
        layout: how it is to be read.
        spend: called with the bytes that come out of a compressed file or a Parquet file; it may raise.
        texts: all values as text, empty ones as null; else Parquet columns keep their types.

    Raises:
        AttuneError: if the file has no header, is damaged, or a column is there twice.
    """
    with path.open("rb") as file:
        stream = decompressed(file, layout.compression, spend) if layout.compression else file
        if layout.format == "parquet":
            with tempfile.TemporaryFile() as copy, damage_as_error(origin):
                while layout.compression and (block := stream.read(BLOCK)):  # Parquet is read from its end
                    copy.write(block)
                yield ParquetTable(copy if layout.compression else file, origin, spend, texts=texts)
            return
        newline = "" if layout.format in ("csv", "tsv") else "\n"  # a line of JSON may hold U+2028 and the like
        encoding = "utf-8-sig" if layout.encoding == "utf-8" else layout.encoding
        with TextIOWrapper(stream, encoding=encoding, newline=newline) as text:
            lines = lines_of(text, origin, layout.encoding)
            match layout.format:
                case "csv" | "tsv":
                    table: Table = SeparatedTable(lines, origin, "\t" if layout.format == "tsv" else layout.separator)
                case "jsonl":
                    table = JsonLinesTable(lines, origin)
                case _:
                    table = PlainLinesTable(lines, origin)
            size = path.stat().st_size
            table.share = lambda: file.tell() / size
            yield table


def _packed(rows: Iterable[list[str | None]], names: Sequence[str], size: int) -> Iterator[pl.DataFrame]:
    """Yield rows in batches: polars needs a third of the memory that Python does for a text."""
    waiting: list[list[str | None]] = []
    schema, characters, empty = dict.fromkeys(names, pl.String), 0, True
    for row in rows:
        waiting.append(row)
        characters += sum(len(value) for value in row if value)
        if len(waiting) == size or characters >= BATCH_BYTES:
            yield pl.DataFrame(waiting, schema=schema, orient="row")
            waiting, characters, empty = [], 0, False
    if waiting or empty:
        yield pl.DataFrame(waiting, schema=schema, orient="row")


class SeparatedTable(Table):
    """CSV or TSV, read with the csv module in strict mode, which knows the line of every fault."""

    def __init__(self, lines: Iterator[str], origin: str, separator: str) -> None:
        csv.field_size_limit(1 << 30)
        self._reader = csv.reader(lines, delimiter=separator, strict=True)
        self.origin = origin
        with self._faults_as_errors():
            header = next((row for row in self._reader if any(map(str.strip, row))), [])
        super().__init__(origin, [name.strip() for name in header])
        if not self.columns:
            raise AttuneError(f"{origin}: the file is empty", "the first line names the columns")
        mark = next((mark for mark in SEPARATORS if mark in header[0]), None) if len(header) == 1 else None
        if mark:
            raise AttuneError(
                f"{origin}: the only column is {self.columns[0]!r}",
                f"if its columns are separated by it, add this under the source: separator: {json.dumps(mark)} "
                f"(of `make predict`: --separator)",
            )
        check_unique(self.columns, f"{origin}:{self._reader.line_num}")

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        place = {name: index for index, name in enumerate(self.columns)}
        places = [place[name] for name in names]
        with self._faults_as_errors():
            yield from _packed(([row[index] or None for index in places] for row in self._rows()), names, size)

    def _rows(self) -> Iterator[list[str]]:
        width = len(self.columns)
        for row in self._reader:
            if len(row) == width:
                yield row
            elif row:  # a blank line is no row
                raise AttuneError(
                    f"{self.origin}:{self._reader.line_num}: {len(row)} fields where the header has {width}",
                    "quote fields that hold the separator, or set separator to the one the file uses",
                )

    @contextmanager
    def _faults_as_errors(self) -> Iterator[None]:
        try:
            yield
        except csv.Error as error:
            raise AttuneError(
                f"{self.origin}:{self._reader.line_num}: {error}",
                "check the quotes there: each field that opens one must close it",
            ) from None


class JsonLinesTable(Table):
    """A JSON object a line; a key that a row lacks is null."""

    fixed = False

    def __init__(self, lines: Iterator[str], origin: str) -> None:
        super().__init__(origin, [])
        self._lines = lines

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        yield from _packed(([as_text(row.get(name)) for name in names] for row in self._rows()), names, size)

    def _rows(self) -> Iterator[dict[str, Any]]:
        known: set[str] = set()
        for number, line in enumerate(self._lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_each_key_once)
            except (ValueError, RecursionError) as error:
                raise AttuneError(
                    f"{self.origin}:{number}: not JSON: {error}", "each line must be one JSON object"
                ) from None
            if not isinstance(row, dict):
                raise AttuneError(
                    f"{self.origin}:{number}: a JSON {type(row).__name__}", "each line must be one JSON object"
                )
            if not row.keys() <= known:
                self.columns += [key for key in row if key not in known]
                known.update(row)
            yield row


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of two values of one key, Python would keep the last in silence."""
    row = {as_text(key) or "": value for key, value in pairs}
    if len(row) != len(pairs):
        keys = [as_text(key) for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return row


class PlainLinesTable(Table):
    """A text a line. Only \\n and \\r\\n end one: `str.splitlines` would also cut at U+2028 and the like."""

    def __init__(self, lines: Iterator[str], origin: str) -> None:
        super().__init__(origin, [LINE])
        self._lines = lines

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        texts = (line.removesuffix("\n").removesuffix("\r") or None for line in self._lines)
        yield from _packed(([text] * len(names) for text in texts), names, size)
