"""What is drawn when rows are placed: a group as a whole, or a row without one, in the order of a seeded hash."""

from hashlib import sha256

import polars as pl

UNIT = pl.coalesce(pl.lit("group ") + pl.col("group"), pl.lit("row ") + pl.col("id")).alias("unit")


def units_of(rows: pl.DataFrame, seed: str) -> pl.DataFrame:
    """Return the units of rows that have `id`, `group`, `label` and `time`, in no particular order.

    Args:
        rows: `time` may be null, or of any type that has an order.
        seed: whatever gives another order when it changes.

    Returns:
        unit: name; rows: how many; label: its commonest, the first by name of several; time: its newest;
        draw (uint64): hash of seed and name, which depends on no other unit, so that one more moves hardly any other.
    """
    alone = rows.filter(pl.col("group").is_null()).select(UNIT, "label", "time", rows=pl.lit(1, pl.Int64))
    per_label = (
        rows.filter(pl.col("group").is_not_null())
        .group_by(UNIT, "label")
        .agg(pl.col("time").max(), rows=pl.len().cast(pl.Int64))
    )
    together = (
        per_label.sort(pl.col("rows"), pl.col("label"), descending=[True, False])
        .group_by("unit")
        .agg(pl.col("label").first(), pl.col("time").max(), pl.col("rows").sum())
    )
    return pl.concat([alone, together]).with_columns(draw=lot("unit", seed))


def lot(column: str, seed: str) -> pl.Expr:
    """Return the seeded hash of each name: the first 64 bits of SHA-256, the same on every machine and version."""

    def hashed(name: str) -> int:
        return int.from_bytes(sha256(f"{seed} {name}".encode()).digest()[:8], "big")

    return pl.col(column).map_elements(hashed, return_dtype=pl.UInt64)
