"""Quotes that swallow rows: where they are characters like others, one may begin a field, and the next end another.

Read by the rules of CSV, all between is one text, and the rows in it are lost without a word.
"""

import re
from collections.abc import Sequence

from stages.common.errors import AttuneError

NO_QUOTES = (
    "if quotes mean nothing in this file, say so under the source: quote: none (of `make predict`: ARGS='--quote none')"
)
LINE_END = re.compile("\r\n|\r|\n")
DIGITS = str.maketrans("123456789", "000000000")
FORM = 32  # characters of a value up to which it may be one of a few, such as a label, or a number
FORMS = 10_000  # of a column, that are remembered: of the first rows, and of one in SAMPLE later ones
SAMPLE = 16
SOME, MANY = 4, 10  # lines with as many separators as a row has, which prose hardly has, or never


class QuoteWatch:
    """Sees all rows of a CSV or TSV file, and ends the reading where a quoted field holds rows.

    A field with line ends and as many separators as a row has holds rows in a TSV file. A text of another file may have
    both. There its lines are rows if each has as many fields as a row, and one of their columns holds only such values
    as other rows have there (labels, numbers), or there are many lines. Where nothing else in the file needs its
    quotes, two lines are enough; that is known at the end of the file.

    Args:
        origin: what messages call the file.
        separator: of the columns.
        width: how many columns there are.
        needed: the header has quotes.
    """

    def __init__(self, origin: str, separator: str, width: int, *, needed: bool) -> None:
        self.origin, self._separator, self._more = origin, separator, width - 1
        self._seen: list[set[str]] = [set() for _ in range(width)]  # of each column, short values with 0 for each digit
        self._suspects: list[tuple[int, list[list[str]]]] = []  # the line in which a quote opens, and fields by line
        self._rows = 0
        self._needed = needed  # quotes mean something in the file: without them a row would have other fields

    def see(self, row: Sequence[str], raw: Sequence[str], first: int) -> None:
        """Take note of a row, of its lines as they stand in the file, and of the number of the first.

        Raises:
            AttuneError: if a field of it holds rows.
        """
        mark = self._separator
        if len(raw) == 1:
            if not self._needed and raw[0].count(mark) != self._more:
                self._needed = True
        else:
            lines = [line.rstrip("\r\n").split(mark) for line in raw]
            holding = [field.count(mark) >= self._more > 0 and bool(LINE_END.search(field)) for field in row]
            if any(holding) and (mark == "\t" or all(len(line) == len(row) for line in lines)):
                before = row[: holding.index(True)]
                suspect = first + sum(len(LINE_END.findall(field)) for field in before), lines
                self._check(*suspect, enough=SOME, many=len(lines) + (mark != "\t"))
                self._suspects.append(suspect)
            else:
                self._needed = True
        self._rows += 1
        if self._rows > FORMS and self._rows % SAMPLE:
            return
        for seen, value in zip(self._seen, row, strict=True):
            if len(value) <= FORM and len(seen) < FORMS:
                seen.add(value.translate(DIGITS))

    def end(self) -> None:
        """Look again, now that all rows have been seen; raise AttuneError if a field of one holds rows."""
        for line, lines in self._suspects:
            self._check(line, lines, SOME if self._needed else 2, len(lines) + 1 if self._needed else MANY)

    def _check(self, line: int, lines: list[list[str]], enough: int, many: int) -> None:
        columns = [{value.translate(DIGITS) for value in column} - {""} for column in zip(*lines, strict=False)]
        like_others = any(column and column <= seen for column, seen in zip(columns, self._seen, strict=False))
        if len(lines) >= many or (len(lines) >= enough and like_others):
            raise AttuneError(
                f"{self.origin}:{line}: a quote opens a field here that swallows rows: it goes on for {len(lines):,} "
                "lines with the separators of rows",
                f"{NO_QUOTES}; if they do mean something, close this one, or take {self._separator!r} out of the field",
            )
