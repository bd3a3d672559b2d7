"""Folds for cross-validation: whole groups, the same label shares in each, and hardly changed by a row more."""

import numpy as np
import polars as pl

from stages.clean.units import UNIT, lot, units_of
from stages.common.errors import AttuneError


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
    starts = units.select(pl.col("label").unique(maintain_order=True)).with_columns(start=lot("label", f"{seed} arc"))
    placed = [
        stratum.select("unit", fold=pl.Series(_arcs(stratum["rows"].to_numpy(), folds, start), dtype=pl.Int16))
        for stratum, start in zip(
            units.partition_by("label", maintain_order=True), (starts["start"] / 2**64).to_list(), strict=True
        )
    ]
    fold = keys.select(UNIT).join(pl.concat(placed), on="unit", how="left", maintain_order="left")["fold"]
    if (found := fold.n_unique()) < folds:
        raise AttuneError(
            f"clean.split.folds asks for {folds} folds, but the rows outside test fill {found}",
            f"they are {units.height} groups (a row without one is its own): ask for fewer folds",
        )
    return fold


def _arcs(sizes: np.ndarray, folds: int, start: float) -> np.ndarray:
    """Return the arc, 0 to folds - 1, that holds the middle of each group; `start` is a share of the circle."""
    weights = np.minimum(sizes, _most(sizes, folds))
    middles = np.cumsum(weights) - weights / 2
    return np.floor(middles / weights.sum() * folds + start * folds).astype(np.int64) % folds


def _most(sizes: np.ndarray, folds: int) -> float:
    """Return the weight that no group may pass: one that is larger than a fold has a fold's weight."""
    largest = np.sort(sizes)[::-1]
    rest = float(sizes.sum())
    for left, size in zip(range(folds, 0, -1), largest, strict=False):
        if size <= rest / left:
            return rest / left
        rest -= float(size)
    return 1.0  # no more groups than folds: each counts the same
