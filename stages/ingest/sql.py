"""The rows of a query as raw records are made of: all of them, sorted, within what a source may unpack to."""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256

import polars as pl

from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.readers.databases import select
from stages.common.readers.table import ROWS, Table
from stages.common.readers.values import columns_of, text_bytes
from stages.ingest.expansion import Limits, SizeBudget

UNLESS_TOLD = Limits()


class QueryTable(Table):
    """The rows of a query, held in memory because they are sorted."""

    def __init__(self, origin: str, frame: pl.DataFrame) -> None:
        super().__init__(origin, frame.columns)
        self.frame, self.rows = frame, frame.height

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        yield from columns_of(self.frame, names).iter_slices(size)


def read_query(source: TextSource, limits: Limits = UNLESS_TOLD) -> tuple[pl.DataFrame, str]:
    """Return the rows of a query, all columns as text, and a SHA-256 of them.

    A database gives rows in any order; here they are sorted, so that the same rows are the same bytes.

    Raises:
        AttuneError: if the query cannot be read (see `select`), gives no row, or more than `limits` allow.
    """
    budget = SizeBudget(limits.max_expanded_mb, source.origin)
    chunks = []
    for chunk in select(source.sql or "", source.query or "", source.origin):
        budget.spend(text_bytes(chunk))
        chunks.append(chunk)
    table = pl.concat(chunks)
    if table.is_empty():
        raise AttuneError(f"{source.origin}: the query gives no rows", "try it with a client of the database")
    table = table.sort(table.columns, nulls_last=True)
    digest = sha256(json.dumps(table.columns, ensure_ascii=False).encode())
    for row in table.iter_rows():
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return table, digest.hexdigest()
