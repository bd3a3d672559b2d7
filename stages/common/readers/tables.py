"""Files as batches of rows. A broken row is an error with its line, and never a shorter table.

CSV, TSV and JSON lines are read line by line, Parquet page by page, so that a file may be larger than the memory. (The
batches of polars itself, `collect_batches`, read ahead of a slow consumer, and its CSV reader fills up short rows.)
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from itertools import chain, islice
from math import isnan
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from stages.common.errors import AttuneError
from stages.common.readers.first_bytes import HEAD, recognized
from stages.common.readers.parquet import ParquetTable
from stages.common.readers.quotes import NO_QUOTES, QuoteWatch
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
        label_names: columns of numbers, with the label that each stands for.
        rows: how many there are, where that is known.
        share: how much of the file has been read, where that is known.
    """

    origin: str
    columns: list[str]
    fixed: bool = True
    without_text: Mapping[str, str] = {}
    label_names: Mapping[str, Mapping[str, str]] = {}
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
        # A line of JSON may hold U+2028 and the like; carriage returns alone are the ends of lines of old Macs.
        old = b"\r" in (head := stream.peek(HEAD)) and b"\n" not in head
        newline = "" if layout.format in ("csv", "tsv") else None if old else "\n"
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
    lines, others = 0, False  # others than of ASCII, which bytes of another encoding would hardly make
    try:
        with _damage_as_errors(origin):
            for line in iter(partial(text.readline, LONGEST + 1), ""):
                lines += 1
                if len(line) > LONGEST:
                    raise AttuneError(
                        f"{origin}:{lines}: a line of more than {LONGEST_MB} MiB",
                        "check that it is a text file; a small compressed file that grows so may be a trap",
                    )
                others |= not line.isascii()
                yield line
    except UnicodeDecodeError as error:
        number = lines + 1 + error.object.count(b"\n", 0, error.start)
        fix = (
            "save the file as UTF-8, or say how it is encoded: encoding: cp1252 (Western Europe), gb18030 (Chinese) or "
            "utf-16 under the source, say (of `make predict`: ARGS='--encoding cp1252')"
        )
        if encoding == "utf-8" and (others or not error.object[: error.start].isascii()):
            fix = "the lines above are UTF-8, so write that character of this line anew; others below may need it, too"
        raise AttuneError(f"{origin}:{number}: byte 0x{error.object[error.start]:02x} is not {encoding}", fix) from None


@contextmanager
def _damage_as_errors(origin: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        fix = (
            "copy or download the file again; if gunzip or the like unpacks it with a warning alone, take what it gives"
        )
        raise AttuneError(f"{origin}: cannot be decompressed ({error})", fix) from None


class LinesTable(Table):
    """Rows out of lines of text, packed: polars needs a third of the memory that Python does for a text."""

    def __init__(self, lines: Iterator[str], origin: str) -> None:
        self.origin, self.columns, self._lines = origin, list[str](), lines

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        waiting: list[list[str | None]] = []
        schema, characters, empty = dict.fromkeys(names, pl.String), 0, True
        for row in self._values(names):
            waiting.append(row)
            characters += sum(len(value) for value in row if value)
            if len(waiting) == size or characters >= BATCH_BYTES:
                yield pl.DataFrame(waiting, schema=schema, orient="row")
                waiting, characters, empty = [], 0, False
        if waiting or empty:
            yield pl.DataFrame(waiting, schema=schema, orient="row")

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        raise NotImplementedError


class SeparatedTable(LinesTable):
    """CSV or TSV, read with the csv module in strict mode, which knows the line of every fault."""

    def __init__(self, lines: Iterator[str], origin: str, layout: Layout) -> None:
        super().__init__(lines, origin)
        csv.field_size_limit(LONGEST)
        self._separator = "\t" if layout.format == "tsv" else layout.separator
        self._before = sum(1 for _ in islice(lines, layout.skip))  # lines that the reader does not see
        first = next(lines, "").lstrip("\ufeff")  # a second mark, of a program that took the first for text
        if hint := re.fullmatch(r'"?sep=([^"\r\n])"?\s*', first):  # of Excel
            self._separator, self._before = self._separator if self._separator != "," else hint[1], layout.skip + 1
        else:
            lines = chain([first], lines)
        self._raw: list[str] = []  # lines of the row that is read
        self._reader = csv.reader(
            self._noted(lines),
            delimiter=self._separator,
            quoting=csv.QUOTE_NONE if layout.quote == "none" else csv.QUOTE_MINIMAL,
            # "a", "b": else the quotes and commas of the second would be text
            skipinitialspace=first.count(self._separator) == first.count(self._separator + " ") > 0,
            strict=True,
        )
        self._header = list[str]()
        self._watch: QuoteWatch | None = None  # of the rows below the header
        header = next((row for row in self._rows() if any(map(str.strip, row))), [])
        names = [name.strip() if layout.header else "" for name in header]
        self.columns = [name or f"column {number}" for number, name in enumerate(names, start=1)]
        self._first = [] if layout.header else [header]  # row that has been read
        self._header = header if layout.header else []
        if not self.columns:
            raise AttuneError(f"{origin}: the file is empty", "the first line names the columns")
        if len(header) == 1 and (mark := next((mark for mark in SEPARATORS if mark in header[0]), None)):
            raise AttuneError(
                f"{origin}: the only column is {self.columns[0]!r}",
                f"if its columns are separated by it, add this under the source: separator: {json.dumps(mark)} "
                f"(of `make predict`: ARGS='--separator \"{mark}\"')",
            )
        check_unique(self.columns, f"{origin}:{self._line}")
        quoted = layout.header and any('"' in line for line in self._raw)
        self._watch = QuoteWatch(origin, self._separator, len(self.columns), needed=quoted)
        if not layout.header:
            self._watch.see(header, self._raw, self._line + 1 - len(self._raw))

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        positions = [self.columns.index(name) for name in names]
        for row in chain(self._first, self._rows()):
            yield [row[position] or None for position in positions]

    def _noted(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self._raw.append(line)
            yield line

    @property
    def _line(self) -> int:
        """The line that was read last."""
        return self._before + self._reader.line_num

    def _check_heading(self, row: Sequence[str], line: int) -> None:
        """Raise AttuneError if it is the header once more, or dashes under it, as sqlcmd writes them."""
        again = [name.strip('\ufeff"') for name in row] == self._header
        if again or (row and row[0].startswith("--") and not any(field.strip(" -") for field in row)):
            raise AttuneError(
                f"{self.origin}:{line}: this is no row, but the header once more or a line drawn under it",
                "delete it, and others like it: files that are put together keep one header",
            )

    def _rows(self) -> Iterator[list[str]]:
        """Yield the rows below the header, or from it on as long as there is none."""
        first = below = self._line + 1  # line of the row that is read
        others = self._header[1:] or None
        self._raw.clear()
        try:
            for row in self._reader:
                if row and self.columns and len(row) != len(self.columns):
                    fix = (
                        "quote fields that hold the separator, or set separator to the one the file uses "
                        f"(of `make predict`: ARGS='--separator \";\"', say); {NO_QUOTES}"
                    )
                    if len(row) > len(self.columns) and not any(row[len(self.columns) :]):
                        fix = "rows end with a separator where the header does not: add it to the header"
                    raise AttuneError(
                        f"{self.origin}:{first}: {len(row)} fields where the header has {len(self.columns)}"
                        + (f", in a row of {more + 1:,} lines" if (more := self._line - first) else ""),
                        fix if len(row) > 1 else f"delete this line if it is no row (a total, a mark of Git); or {fix}",
                    )
                if row[1:] == others or (first == below and others):
                    self._check_heading(row, first)
                if row and self._watch:
                    self._watch.see(row, self._raw, first)
                if row:  # a blank line is no row; an empty cell of an only column is written as ""
                    yield row
                first = self._line + 1
                self._raw.clear()
        except csv.Error as error:
            line, fault = self._line, str(error)
            if "unexpected end" in fault or "limit" in fault:
                length = "to the end of the file" if "end" in fault else f"over more than {LONGEST_MB} MiB"
                line, fault = first, f"a quote opens a field here that goes on {length}"
            raise AttuneError(
                f"{self.origin}:{line}: {fault}",
                'check the quotes there: each field that opens one must close it, and one within it is written "", not '
                f'\\" (sed \'s/\\\\"/""/g\' FILE > NEW); {NO_QUOTES}',
            ) from None
        if self._watch:
            self._watch.end()


class JsonLinesTable(LinesTable):
    """A JSON object a line; a key that a row lacks is null."""

    fixed = False

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        keys: dict[str, None] = {}
        for number, line in enumerate(self._lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.lstrip("\ufeff"))  # a mark within a file that was put together of several
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
