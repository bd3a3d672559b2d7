"""Files as batches of rows. A broken row is an error with its line, and never a shorter table.

CSV, TSV and JSON lines are read line by line, Parquet page by page, so that a file may be larger than the memory. (The
batches of polars itself, `collect_batches`, read ahead of a slow consumer, and its CSV reader fills up short rows.)
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from itertools import chain, islice
from math import isnan
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from stages.common.errors import AttuneError
from stages.common.readers.first_bytes import recognized
from stages.common.readers.parquet import ParquetTable
from stages.common.readers.quotes import FIRST, NO_QUOTES, SAMPLE, QuoteWatch
from stages.common.readers.streams import BATCH_BYTES, DAMAGE, LONGEST, LONGEST_MB, ROWS, Layout, Spend

LINE = "line"  # name of the only column of a plain text file
SEPARATORS = ";\t|,"


class Table(Protocol):
    """An open table: what every reader of a file or database offers.

    Attributes:
        origin: what messages call it.
        columns: the names; of JSON lines, whose rows have keys of their own, those of the rows read so far.
        fixed: whether all names are known before the first row is read.
        without_text: further columns, with what they hold that has no form as text.
        rows: how many there are, where that is known.
        share: how much of the file has been read, where that is known.
    """

    origin: str
    columns: list[str]
    fixed: bool = True
    without_text: Mapping[str, str] = {}
    rows: int | None = None
    share: Callable[[], float] | None = None

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """Yield the rows with these columns, at most `size` at a time; a table without rows has one empty batch.

        Raises:
            AttuneError: if a row is damaged, with its line where there are lines.
        """


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
        with _damage_as_errors(origin):
            stream, layout = recognized(file, layout, origin, spend)
        if layout.format == "parquet":
            parquet = ParquetTable(stream, origin, spend, texts=texts)
            check_unique(parquet.stored_columns, origin)
            yield parquet
            return
        newline = "" if layout.format in ("csv", "tsv") else "\n"  # a line of JSON may hold U+2028 and the like
        encoding = "utf-8-sig" if layout.encoding == "utf-8" else layout.encoding
        with TextIOWrapper(stream, encoding=encoding, newline=newline) as text:
            lines = _lines(text, origin, layout.encoding)
            table: LinesTable
            match layout.format:
                case "jsonl":
                    table = JsonLinesTable(lines, origin)
                case "lines":
                    table = PlainLinesTable(lines, origin)
                case _:
                    table = SeparatedTable(lines, origin, layout)
            size = path.stat().st_size
            table.share = lambda: file.tell() / size
            yield table


def check_unique(names: Sequence[str], where: str) -> None:
    """Raise AttuneError if two columns have one name."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise AttuneError(f"{where}: the column {repeated[0]!r} is there twice", "rename one of them")


def as_text(value: Any) -> str | None:
    """Return a text as it is, other values as JSON has them, and null for what is empty or NaN.

    A lone surrogate, which JSON can spell and drivers may pass on, is replaced: it is no character.
    """
    if value is None or value == "" or (isinstance(value, float) and isnan(value)):
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")


def _lines(text: TextIOWrapper, origin: str, encoding: str) -> Iterator[str]:
    """Yield lines with their ends.

    Raises:
        AttuneError: with the line, if it has no end, a byte is not of the encoding, or the compressed file is damaged.
    """
    lines = 0
    try:
        with _damage_as_errors(origin):
            for line in iter(partial(text.readline, LONGEST + 1), ""):
                lines += 1
                if len(line) > LONGEST:
                    raise AttuneError(
                        f"{origin}:{lines}: a line of more than {LONGEST_MB} MiB",
                        "check that it is a text file; a small compressed file that grows so may be a trap",
                    )
                yield line
    except UnicodeDecodeError as error:
        number = lines + 1 + error.object.count(b"\n", 0, error.start)
        raise AttuneError(
            f"{origin}:{number}: byte 0x{error.object[error.start]:02x} is not {encoding}",
            "save the file as UTF-8, or say how it is encoded: encoding: cp1252 (Western Europe), gb18030 (Chinese) or "
            "utf-16 under the source, say (of `make predict`: ARGS='--encoding cp1252')",
        ) from None


@contextmanager
def _damage_as_errors(origin: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise AttuneError(f"{origin}: cannot be decompressed ({error})", "copy or download the file again") from None


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


class LinesTable(Table):
    """Rows out of lines of text."""

    def __init__(self, lines: Iterator[str], origin: str) -> None:
        self.origin, self.columns, self._lines = origin, list[str](), lines

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        return packed(self._values(names), names, size)

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        raise NotImplementedError


class SeparatedTable(LinesTable):
    """CSV or TSV, read with the csv module in strict mode, which knows the line of every fault."""

    def __init__(self, lines: Iterator[str], origin: str, layout: Layout) -> None:
        super().__init__(lines, origin)
        csv.field_size_limit(LONGEST)
        separator = "\t" if layout.format == "tsv" else layout.separator
        before = sum(1 for _ in islice(lines, layout.skip))  # lines that the reader does not see
        first = next(lines, "")
        if hint := re.fullmatch(r'"?sep=([^"\r\n])"?\s*', first):  # of Excel
            separator, before = separator if separator != "," else hint[1], before + 1
        else:
            lines = chain([first], lines)
        quoting = csv.QUOTE_NONE if layout.quote == "none" else csv.QUOTE_MINIMAL
        self._rows = self._numbered(csv.reader(lines, delimiter=separator, quoting=quoting, strict=True), before)
        top = next((row for row in self._rows if any(map(str.strip, row[2]))), None)
        if not top:
            raise AttuneError(f"{origin}: the file is empty", "the first line names the columns")
        names = [name.strip() if layout.header else "" for name in top[2]]
        self.columns = [name or f"column {number}" for number, name in enumerate(names, start=1)]
        if len(names) == 1 and (mark := next((mark for mark in SEPARATORS if mark in top[2][0]), None)):
            raise AttuneError(
                f"{origin}: the only column is {self.columns[0]!r}",
                f"if its columns are separated by it, add this under the source: separator: {json.dumps(mark)} "
                f"(of `make predict`: ARGS='--separator \"{mark}\"')",
            )
        check_unique(self.columns, f"{origin}:{top[1]}")
        if not layout.header:
            self._rows = chain([top], self._rows)
        self._watch = QuoteWatch(origin, separator, len(names))

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        positions, width = [self.columns.index(name) for name in names], len(self.columns)
        for number, (first, last, row) in enumerate(self._rows):
            if len(row) != width:
                raise AttuneError(
                    f"{self.origin}:{first}: {len(row)} fields where the header has {width}"
                    + (f", in a row of {last - first + 1:,} lines" if last > first else ""),
                    "quote fields that hold the separator, or set separator to the one the file uses "
                    f"(of `make predict`: ARGS='--separator \";\"', say); {NO_QUOTES}",
                )
            if last > first or number < FIRST or not number % SAMPLE:
                self._watch.see(row, first, several=last > first)
            yield [row[position] or None for position in positions]
        self._watch.end()

    def _numbered(self, reader: Any, before: int) -> Iterator[tuple[int, int, list[str]]]:
        """Yield rows with the numbers of their first and last lines."""
        first = before + 1
        try:
            for row in reader:
                last = before + reader.line_num
                if row:  # a blank line is no row; an empty cell of an only column is written as ""
                    yield first, last, row
                first = last + 1
        except csv.Error as error:
            line, fault = before + reader.line_num, str(error)
            if "unexpected end" in fault or "limit" in fault:
                length = "to the end of the file" if "end" in fault else f"over more than {LONGEST_MB} MiB"
                line, fault = first, f"a quote opens a field here that goes on {length}"
            raise AttuneError(
                f"{self.origin}:{line}: {fault}",
                f"check the quotes there: each field that opens one must close it; {NO_QUOTES}",
            ) from None


class JsonLinesTable(LinesTable):
    """A JSON object a line; a key that a row lacks is null."""

    fixed = False

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        keys: dict[str, None] = {}
        for number, line in enumerate(self._lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                fault = "" if isinstance(row, dict) else f"a JSON {type(row).__name__}"
            except (ValueError, RecursionError) as error:
                fault = f"not JSON: {error}"
            if fault:
                raise AttuneError(f"{self.origin}:{number}: {fault}", "each line must be one JSON object")
            if not row.keys() <= keys.keys():
                keys |= dict.fromkeys(row)
                self.columns = list(keys)
            yield [as_text(row.get(name)) for name in names]


class PlainLinesTable(LinesTable):
    """A text a line. Only \\n and \\r\\n end one: `str.splitlines` would also cut at U+2028 and the like."""

    def __init__(self, lines: Iterator[str], origin: str) -> None:
        super().__init__(lines, origin)
        self.columns = [LINE]

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        for line in self._lines:
            yield [line.removesuffix("\n").removesuffix("\r") or None] * len(names)
