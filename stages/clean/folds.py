"""Whole groups in the order of a seeded hash, and folds of them for cross-validation, hardly changed by a row more."""

import numpy as np
import polars as pl

from stages.common.digests import seeded_hash
from stages.common.errors import AttuneError

# A group as a whole, or a row without one.
UNIT = pl.coalesce(pl.lit("group ") + pl.col("group"), pl.lit("row ") + pl.col("id")).alias("unit")


def hash_order(column: str, seed: str) -> pl.Expr:
    """Return the seeded hash of each name, uint64."""
    return pl.col(column).map_elements(lambda name: seeded_hash(seed, name), return_dtype=pl.UInt64)


def units_of(rows: pl.DataFrame, seed: str) -> pl.DataFrame:
    """Return the units of rows that have `id`, `group`, `label` and `time` (any type), in no particular order.

    Returns:
        unit: name; rows: how many; label: its commonest, the first by name of several; time: its newest;
        draw (uint64): hash of seed and name, which depends on no other unit, so that one more moves hardly any other.
    """
    alone = rows.filter(pl.col("group").is_null()).select(UNIT, "label", "time", rows=pl.lit(1, pl.Int64))
    per_label = rows.drop_nulls("group").group_by(UNIT, "label").agg(pl.col("time").max(), rows=pl.len().cast(pl.Int64))
    together = (
        per_label.sort("rows", "label", descending=[True, False])
        .group_by("unit")
        .agg(pl.col("label").first(), pl.col("time").max(), pl.col("rows").sum())
    )
    return pl.concat([alone, together]).with_columns(draw=hash_order("unit", seed))


def assign_folds(rows: pl.DataFrame, folds: int, seed: int) -> pl.Series:
    """Return the fold of each row, Int16 from 0 to folds - 1, the same in any order of the rows.

    Each label's groups stand in the order of a seeded hash around a circle, cut into as many arcs of equal weight as
    there are folds; where the first arc begins is drawn for each label, so that rare labels do not all fill the same
    folds. The hash is another one than that of the split, or validation would be a fold.

    Args:
        rows: `id`, `group` and `label` of the rows outside test.
        folds: how many.
        seed: the pipeline's.

    Raises:
        AttuneError: if a fold would be empty.
    """
    keys = rows.select("id", "group", "label", time=pl.lit(None, pl.Int8))
    units = units_of(keys, f"{seed} fold").sort("label", "draw", "unit")
    placed = []
    for stratum in units.partition_by("label", maintain_order=True):
        start = stratum.head(1).select(hash_order("label", f"{seed} arc")).item() / 2**64
        sizes = stratum["rows"].to_numpy()
        weights = np.minimum(sizes, sizes.sum() / folds)  # a group larger than a fold counts as one
        middles = (np.cumsum(weights) - weights / 2) / weights.sum()
        fold = np.floor(middles * folds + start * folds).astype(np.int16) % folds
        placed.append(stratum.select("unit", fold=pl.Series(fold, dtype=pl.Int16)))
    fold = keys.select(UNIT).join(pl.concat(placed), on="unit", how="left", maintain_order="left")["fold"]
    if (found := fold.n_unique()) < folds:
        raise AttuneError(
            f"clean.split.folds asks for {folds} folds, but the rows outside test fill {found}",
            f"they are {units.height} groups (a row without one is its own): ask for fewer folds",
        )
    return fold
