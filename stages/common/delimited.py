"""Files with separators, read with the csv module in strict mode, which knows the line of every fault."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stages.common.errors import AttuneError

MARKS = ";\t|,"


def header_of(reader: Any, origin: str, how: Callable[[str], str]) -> list[str]:
    """Return the names of the columns, which the first line that is not blank holds.

    Args:
        reader: a `csv.reader` in strict mode.
        origin: what is read, for messages.
        how: tells what to do where another separator than the reader's seems to be meant.

    Raises:
        AttuneError: if there is no line, it seems to be parted by another separator, or a name is there twice.
    """
    csv.field_size_limit(1 << 30)
    with _faults_told(reader, origin):
        header = [name.strip() for name in next((row for row in reader if row), [])]
    if not header:
        raise AttuneError(f"{origin}: the file is empty", "the first line names the columns")
    other = next((mark for mark in MARKS if mark in header[0]), None) if len(header) == 1 else None
    if other:
        raise AttuneError(
            f"{origin}: the only column is {header[0]!r}", f"if its columns are parted by {other!r}, {how(other)}"
        )
    if twice := [name for name, times in Counter(header).items() if times > 1]:
        raise AttuneError(f"{origin}:{reader.line_num}: the column {twice[0]!r} is there twice", "rename one of them")
    return header


def full_rows(reader: Any, header: list[str], origin: str, how: str) -> Iterator[list[str]]:
    """Yield the rows, each with a field for every column; a blank line is no row.

    Raises:
        AttuneError: naming file and line, if a row is shorter or longer than the header, or its quotes do not close.
    """
    with _faults_told(reader, origin):
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise AttuneError(
                    f"{origin}:{reader.line_num}: {len(row)} fields where the header has {len(header)}",
                    f"quote fields that hold the separator, or {how}",
                )
            yield row


@contextmanager
def _faults_told(reader: Any, origin: str) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise AttuneError(
            f"{origin}:{reader.line_num}: {error}", "check the quotes there: each field that opens one must close it"
        ) from None
