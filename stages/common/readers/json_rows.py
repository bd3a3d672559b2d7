"""JSON objects as rows: one a line, or all of them in one document."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

from stages.common.errors import AttuneError
from stages.common.readers.streams import Layout
from stages.common.readers.table import LinesTable, as_text

WRAPPED = ("data", "rows", "examples")  # keys of a document beside which there may be others
ONE_EACH = "each line must be one JSON object, or the file a list of them"


class JsonTable(LinesTable):
    """A JSON object a line; or a document: a list of objects, or an object of them by their ids, as they come.

    A key that a row lacks is null. A document is in memory as a whole.
    """

    fixed = False

    def __init__(self, lines: Iterator[str], origin: str, layout: Layout) -> None:
        super().__init__(lines, origin, layout)
        top: list[str] = []
        while not (first := next(lines, "end")).strip():
            top.append(first)
        self.lines = chain([*top, *([first] if first != "end" else [])], lines)
        self._document = first.strip().lstrip("\ufeff") in ("[", "{") or first.lstrip("\ufeff \t").startswith("[")

    def _values(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        keys: dict[str, None] = {}
        for row in self._of_document("".join(self.lines)) if self._document else self._of_lines():
            if not row.keys() <= keys.keys():
                keys |= dict.fromkeys(row)
                self.columns = list(keys)
            yield [as_text(row.get(name)) for name in names]

    def _of_lines(self) -> Iterator[dict[str, Any]]:
        rows = (self._row(number, line) for number, line in enumerate(self.lines, start=1) if line.strip())
        first = [*islice(rows, 2)]
        yield from (len(first) == 1 and _rows_within(first[0])) or first  # else the first is a row like others
        yield from rows

    def _row(self, number: int, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line.lstrip("\ufeff"))  # a mark within a file that was put together of several
            fault = "" if isinstance(row, dict) else f"a JSON {type(row).__name__}"
        except (ValueError, RecursionError) as error:
            fault = f"not JSON: {error}"
        if fault:
            raise AttuneError(f"{self.origin}:{number}: {fault}", ONE_EACH)
        return dict(row)

    def _of_document(self, text: str) -> Iterator[dict[str, Any]]:
        try:
            whole = json.loads(text.lstrip("\ufeff"))
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            raise AttuneError(f"{self.origin}:{line}: not JSON: {error}", ONE_EACH) from None
        rows = whole if isinstance(whole, list) else _rows_within(whole) or [whole]
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                what = f"{self.origin}: row {number:,} is a JSON {type(row).__name__}"
                raise AttuneError(what, "each row of the list must be an object")
            yield row


def _rows_within(whole: dict[str, Any]) -> list[Any]:
    """Return the rows that one object holds: its values, if all are objects, or a list that is called so; or none."""
    if whole and all(isinstance(value, dict) for value in whole.values()):
        return list(whole.values())
    lists = (whole[name] for name in WRAPPED if isinstance(whole.get(name), list))
    return next((rows for rows in lists if all(isinstance(row, dict) for row in rows)), [])
