"""Files as batches of rows. A broken row is an error with its line, and never a shorter table.

CSV, TSV and JSON lines are read line by line, Parquet page by page, so that a file may be larger than the memory. (The
batches of polars itself, `collect_batches`, read ahead of a slow consumer, and its CSV reader fills up short rows.)
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import polars as pl

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.readers.json_rows import JsonTable
from stages.common.readers.parquet import ParquetTable
from stages.common.readers.quotes import FIRST, NO_QUOTES, SAMPLE, QuoteWatch
from stages.common.readers.streams import HEAD, LONGEST, LONGEST_MB, ROWS, Layout, Spend, damage_as_errors, recognized
from stages.common.readers.table import LINE, NAME, LinesTable, Table, check_unique, packed

COLUMNS = {"lines": {"text": LINE}, "fasttext": {"text": "text", "label": "label"}}  # of formats that name none
FASTTEXT = re.compile(r"(?<!\S)__label__(\S+)\s*")


@contextmanager
def open_table(
    path: Path, origin: str, layout: Layout, *, spend: Spend = lambda count: None, texts: bool = True
) -> Iterator[Table]:
    """Open a file, which messages call `origin`, to read its rows.

    `spend` is called with the bytes that come out of a compressed file or a Parquet file; it may raise. With `texts`,
    all values are text, empty ones null; else Parquet columns keep their types. An AttuneError if the file has no
    header, is damaged, or a column is there twice.
    """
    with path.open("rb") as file:
        with damage_as_errors(origin):
            stream, layout = recognized(file, layout, origin, spend)
        if layout.format == "parquet":
            yield ParquetTable(stream, origin, spend, texts=texts)
            return
        # A line of JSON may hold U+2028 and the like; carriage returns alone are the ends of lines of old Macs.
        old = b"\r" in (head := stream.peek(HEAD)) and b"\n" not in head
        newline = "" if layout.format in ("csv", "tsv") else None if old else "\n"
        with TextIOWrapper(stream, encoding=layout.encoding, newline=newline) as text:
            readers = {"csv": SeparatedTable, "tsv": SeparatedTable, "jsonl": JsonTable, "fasttext": FastTextTable}
            reader = readers.get(layout.format, LinesTable)
            table = reader(_lines(text, origin, layout.encoding.removesuffix("-sig")), origin, layout)
            size = path.stat().st_size
            table.share = lambda: file.tell() / size
            yield table


def _lines(text: TextIOWrapper, origin: str, encoding: str) -> Iterator[str]:
    """Yield lines with their ends; an AttuneError names the line without one, with a wrong byte, or damage."""
    lines, others = 0, False  # others than of ASCII, which bytes of another encoding would hardly make
    try:
        with damage_as_errors(origin):
            for line in iter(partial(text.readline, LONGEST + 1), ""):
                lines += 1
                if len(line) > LONGEST:
                    fix = "check that it is a text file; a small compressed file that grows so may be a trap"
                    raise AttuneError(f"{origin}:{lines}: a line of more than {LONGEST_MB} MiB", fix)
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


class FastTextTable(LinesTable):
    """A text a line, with labels among its words: `__label__pos`. They are a JSON list; null where there are none."""

    def __init__(self, lines: Iterator[str], origin: str, layout: Layout) -> None:
        super().__init__(lines, origin, layout)
        self.columns = ["text", "label"]

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        for line in self.lines:
            labels = FASTTEXT.findall(line)
            row = {
                "text": FASTTEXT.sub("", line).strip() or None,
                "label": json.dumps(labels, ensure_ascii=False) if labels else None,
            }
            yield [row[name] for name in names]


class SeparatedTable(LinesTable):
    """CSV or TSV, read with the csv module in strict mode, which knows the line of every fault."""

    def __init__(self, lines: Iterator[str], origin: str, layout: Layout) -> None:
        super().__init__(lines, origin, layout)
        csv.field_size_limit(LONGEST)
        separator = "\t" if layout.format == "tsv" else layout.separator
        before = sum(1 for _ in islice(lines, layout.skip))  # lines that the reader does not see
        first = next(lines, "").lstrip("\ufeff")  # a second mark, of a program that took the first for text
        if hint := re.fullmatch(r'"?sep=([^"\r\n])"?\s*', first):  # of Excel
            separator, before = separator if separator != "," else hint[1], before + 1
        else:
            lines = chain([first], lines)
        quoting: Literal[0, 3] = csv.QUOTE_NONE if layout.quote == "none" else csv.QUOTE_MINIMAL
        spaced = first.count(separator) == first.count(separator + " ") > 0  # "a", "b": else the quotes would be text
        escape = None if layout.escape == "none" else layout.escape
        if escape:  # before another character it stands for itself: \N is a missing value of databases
            plain = re.compile(rf'\\([^\\"\r\n{re.escape(separator)}])|(\\.)', re.DOTALL)
            lines = (plain.sub(lambda pair: pair[2] or rf"\\{pair[1]}", line) for line in lines)
        dialect: dict[str, Any] = {"delimiter": separator, "quoting": quoting, "escapechar": escape}
        reader = csv.reader(lines, **dialect, skipinitialspace=spaced, strict=True)
        self._rows = self._numbered(reader, before)
        top = next((row for row in self._rows if any(map(str.strip, row[2]))), None)
        if not top:
            raise AttuneError(f"{origin}: the file is empty", "the first line names the columns")
        names = [name.strip() if layout.header else "" for name in top[2]]
        self.columns = [name or f"column {number}" for number, name in enumerate(names, start=1)]
        if len(names) == 1 and (mark := next((mark for mark in ";\t|," if mark in top[2][0]), None)):
            raise AttuneError(
                f"{origin}: the only column is {display(self.columns[0], NAME)!r}",
                f"if its columns are separated by it, add this under the source: separator: {json.dumps(mark)} "
                f"(of `make predict`: ARGS='--separator \"{mark}\"')",
            )
        check_unique(self.columns, f"{origin}:{top[1]}")
        self._header = top[2] if layout.header and len(names) > 1 else ["\0"]  # which is in no row
        if not layout.header:
            self._rows = chain([top], self._rows)
        self._quoted = layout.quote != "none"
        self._watch = QuoteWatch(origin, separator, len(names))

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        positions, width = [self.columns.index(name) for name in names], len(self.columns)
        for number, (first, last, row) in enumerate(self._rows):
            if len(row) != width:
                fix = (
                    "quote fields that hold the separator, or set separator to the one the file uses "
                    f"(of `make predict`: ARGS='--separator \";\"', say); {NO_QUOTES}"
                )
                if len(row) > width and not any(row[width:]):
                    fix = "rows end with a separator where the header does not: add it to the header"
                raise AttuneError(
                    f"{self.origin}:{first}: {len(row)} fields where the header has {width}"
                    + (f", in a row of {last - first + 1:,} lines" if last > first else ""),
                    fix if len(row) > 1 else f"delete this line if it is no row (a total, a mark of Git); or {fix}",
                )
            again = row[-1] == self._header[-1] and [name.strip('\ufeff"') for name in row] == self._header
            if again or (number == 0 and row[0].startswith("--") and not any(field.strip(" -") for field in row)):
                what = f"{self.origin}:{first}: this is no row, but the header once more or a line drawn under it"
                raise AttuneError(what, "delete it, and others like it: files that are put together keep one header")
            if self._quoted and (last > first or number < FIRST or not number % SAMPLE):
                self._watch.see(row, first)
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
                line, fault = (
                    first,
                    f"a quote opens a field here that ends nowhere, or after more than {LONGEST_MB} MiB",
                )
            raise AttuneError(
                f"{self.origin}:{line}: {fault}",
                'check the quotes there: each field that opens one must close it, and one within it is written ""; '
                f"{NO_QUOTES}",
            ) from None


def documents(place: str, files: Mapping[str, Path], layout: Layout, spend: Spend) -> Iterator[pl.DataFrame]:
    """Yield files as rows, in chunks: the text of each, its name, and the name of the folder that it is in.

    `place` is where they are, with the mark before their names: `data/inbox/reviews/`, `data/inbox/days.zip:`. An
    AttuneError names the file that is damaged or too long.
    """

    def rows() -> Iterator[list[str | None]]:
        for name, path in files.items():
            origin = f"{place}{display(name, 160)}"
            with open_table(path, origin, layout, spend=spend) as document:
                assert isinstance(document, LinesTable)
                text = "".join(document.lines)
            if len(text) > LONGEST:
                raise AttuneError(f"{origin}: a document of more than {LONGEST_MB} MiB", "take it out, or split it")
            yield [text or None, name, PurePosixPath(place.removesuffix(":"), name).parent.name or None]

    return packed(rows(), ("text", "file", "folder"), ROWS)
