"""The rows of a query as raw records are made of: all of them, sorted, within what a source may unpack to."""

import json
from hashlib import sha256

import polars as pl

from stages.common.databases import select
from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.ingest.expansion import Limits, SizeBudget

CELL = 16  # bytes that polars needs for a text besides its characters
UNLESS_TOLD = Limits()


def read_query(source: TextSource, limits: Limits = UNLESS_TOLD) -> tuple[pl.DataFrame, str]:
    """Return the rows of a query, all columns as text, and a SHA-256 of them.

    A database gives rows in any order; here they are sorted, so that the same rows are the same bytes.

    Raises:
        AttuneError: if the query cannot be read (`stages.common.databases`), gives no row, or more than `limits` allow.
    """
    budget = SizeBudget(limits.max_expanded_mb, source.origin)
    chunks = []
    for chunk in select(source.sql or "", source.query or "", source.origin):
        texts = sum(size or 0 for size in chunk.select(pl.all().str.len_bytes().cast(pl.Int64).sum()).row(0))
        budget.spend(texts + CELL * chunk.height * chunk.width)
        chunks.append(chunk)
    table = pl.concat(chunks)
    if table.is_empty():
        raise AttuneError(f"{source.origin}: the query gives no rows", "try it with a client of the database")
    table = table.sort(table.columns, nulls_last=True)
    digest = sha256(json.dumps(table.columns, ensure_ascii=False).encode())
    for row in table.iter_rows():
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return table, digest.hexdigest()
