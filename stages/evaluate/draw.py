"""Rows drawn with the seed, whatever the order they come in."""

from hashlib import sha256

import polars as pl


def drawn(rows: pl.DataFrame, seed: str) -> pl.DataFrame:
    """Return the rows in the order of a seeded hash of their `id`: the first n of them are a sample.

    One row more or less moves hardly any other into or out of a sample.
    """
    lots = [sha256(f"{seed} {name}".encode()).digest()[:8] for name in rows["id"]]
    return rows.with_columns(_lot=pl.Series(lots, dtype=pl.Binary)).sort("_lot", "id").drop("_lot")
