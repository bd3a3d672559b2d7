"""Quotes that swallow rows: where they are characters like others, one may begin a field, and the next end another.

Read by the rules of CSV, all between is one text, and the rows in it are lost without a word.
"""

import re
from collections.abc import Sequence

from stages.common.errors import AttuneError

NO_QUOTES = (
    "if quotes mean nothing in this file, say so under the source: quote: none (of `make predict`: ARGS='--quote none')"
    r"""; if a backslash takes away their meaning (\"), say: escape: "\\" (ARGS="--escape '\\'")"""
)
LINE_END = re.compile("\r\n|\r|\n")
DIGITS = str.maketrans("123456789", "000000000")
FORM = 32  # characters of a value up to which it may be one of a few, such as a label, or a number
FIRST, SAMPLE = 10_000, 32  # the first rows, and one in so many later ones, say what values a column holds
MANY = 10  # lines like rows, which no prose has


class QuoteWatch:
    """Sees rows of a CSV or TSV file, and ends the reading where a quoted field holds rows.

    A field with line ends and as many separators as a row has holds rows in a TSV file. A text of another file may have
    both. There its lines are rows if each has as many fields as a row, no separator stands before a blank or in a
    number, as in prose, unless other rows have such, and one column holds only such values as other rows have there
    (labels, numbers), or there are many lines. What other rows have is known at the end of the file.
    """

    def __init__(self, origin: str, separator: str, width: int) -> None:
        self.origin, self._separator, self._more = origin, separator, width - 1
        self._prose = re.compile(rf"[0-9]{re.escape(separator)}[0-9]|{re.escape(separator)}\s")
        self._habits = set[str]()  # of prose, that rows have
        self._seen: list[set[str]] = [set() for _ in range(width)]  # of each column, short values with 0 for each digit
        self._suspects: list[tuple[int, list[str]]] = []  # the line in which a quote opens, and the lines from there on

    def see(self, row: Sequence[str], first: int) -> None:
        """Take note of a row and the number of its first line; an AttuneError if a field of it holds rows."""
        mark = self._separator
        for number, field in enumerate(row):
            if LINE_END.search(field) and field.count(mark) >= self._more > 0:
                lines = LINE_END.split(mark.join(row))
                if mark == "\t" or all(line.count(mark) == self._more for line in lines):
                    self._suspects.append((first + len(LINE_END.findall(mark.join(row[:number]))), lines))
                    self._check(*self._suspects[-1])
        self._habits |= self._habits_of(mark.join("" if mark in value else value for value in row))
        for seen, value in zip(self._seen, row, strict=True):
            if len(value) <= FORM and len(seen) < FIRST:
                seen.add(value.translate(DIGITS))

    def end(self) -> None:
        """Look again, now that all rows have been seen; raise AttuneError if a field of one holds rows."""
        for suspect in self._suspects:
            self._check(*suspect)

    def _habits_of(self, line: str) -> set[str]:
        return {found.translate(DIGITS) for found in self._prose.findall(line)}

    def _check(self, line: int, lines: list[str]) -> None:
        rows = [text.translate(DIGITS).split(self._separator) for text in lines]
        columns = [{*column} - {""} for column in zip(*rows, strict=False)]
        likely = len(lines) >= MANY or any(
            column and column <= seen for column, seen in zip(columns, self._seen, strict=False)
        )
        if self._separator == "\t" or (likely and all(self._habits_of(text) <= self._habits for text in lines)):
            raise AttuneError(
                f"{self.origin}:{line}: a quote opens a field here that swallows rows: it goes on for {len(lines):,} "
                "lines with the separators of rows",
                f"{NO_QUOTES}; if they do mean something, close this one, or take {self._separator!r} out of the field",
            )
