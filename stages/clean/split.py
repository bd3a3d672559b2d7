"""Three splits that share no group: by official split first, then by group, at random or by time."""

import numpy as np
import polars as pl

from stages.clean.folds import UNIT, assign_folds, units_of
from stages.clean.timestamps import read_times
from stages.common.errors import AttuneError
from stages.common.params.clean import Split
from stages.common.pipeline.validation import check_label_counts
from stages.common.schemas import SPLITS, CleanRecords

HELD_OUT = ("test", "validation")  # in the order in which they are drawn


def split_records(records: pl.DataFrame, params: Split, seed: int) -> dict[str, pl.DataFrame]:
    """Divide raw records into the train, validation and test of clean ones, each sorted by id.

    A row with an official split goes there. The others are divided by group (a row without one is its own group):
    at random with the same label shares everywhere, as well as groups allow, or by time, the newest into test.

    Raises:
        AttuneError: if there are too few rows, one label alone, or a label missing from a split.
    """
    check_label_counts(dict(records["label"].value_counts().sort("label").iter_rows()), "after cleaning")
    keys = records.select("id", "group", "label", "split", "timestamp")
    homes = _homes(keys, params, seed)
    fold = pl.Series([None], dtype=pl.Int16).new_from_index(0, keys.height)
    if params.folds:
        outside = (homes != "test").arg_true()
        fold = fold.scatter(outside, assign_folds(keys[outside], params.folds, seed))
    placed = records.with_columns(home=homes, fold=fold)
    splits = {name: placed.filter(home=name).sort("id").select(CleanRecords.columns()) for name in SPLITS}
    for name, rows in splits.items():
        if rows.is_empty():
            raise AttuneError(
                f"the {name} split would be empty",
                "give it rows in the split column, or leave columns.split out; "
                "if there are groups, there may be too few, or one may hold too many rows",
            )
        if missing := sorted(set(records["label"].unique()) - set(rows["label"].unique())):
            raise AttuneError(
                f"the {name} split ({rows.height} rows) would hold no row with the label {missing[0]!r}",
                "add rows of that label, change clean.split or seed, or leave the label out through ingest.labels",
            )
    return splits


def _homes(keys: pl.DataFrame, params: Split, seed: int) -> pl.Series:
    """Return the split of each row: its own, else its group's, else one that is drawn where a split is missing."""
    official = keys.drop_nulls("split")
    of_group = official.drop_nulls("group").group_by("group").agg(home=pl.col("split").min())
    homes = keys.join(of_group, on="group", how="left", maintain_order="left").select(pl.coalesce("split", "home"))
    loose = keys.filter(homes["split"].is_null())
    missing = [name for name in HELD_OUT if name not in set(official["split"].unique())]
    if not missing or loose.is_empty():
        return homes["split"].fill_null("train")
    if params.by == "time":
        loose = loose.with_columns(read_times(loose["timestamp"])["time"])
        units = _by_time(units_of(loose, str(seed)), params, missing)
    else:
        # Each label's groups on their own, in the order of a seeded hash of their name: a row that is added later moves
        # hardly any other one, and a champion is not scored on rows that it was trained on.
        units = units_of(loose.with_columns(time=pl.lit(None, pl.Int8)), str(seed)).sort("label", "draw", "unit")
        strata = units.partition_by("label", maintain_order=True)
        units = pl.concat([part.with_columns(_at_random(part["rows"].to_numpy(), params)) for part in strata])
    drawn = keys.select(UNIT).join(units.select("unit", "drawn"), on="unit", how="left", maintain_order="left")
    into_missing = pl.when(pl.col("drawn").is_in(missing)).then("drawn").otherwise(pl.lit("train"))
    return pl.concat([homes, drawn], how="horizontal").select(pl.coalesce("split", into_missing)).to_series()


def _at_random(sizes: np.ndarray, params: Split) -> pl.Series:
    """Return the split of each group, in the order drawn; every split gets one as long as there are three."""
    total = int(sizes.sum())
    names = np.full(len(sizes), "train", dtype=object)
    # A group that is larger than what is held out can only be trained on.
    places = np.flatnonzero(sizes <= (params.test + params.validation) * total)
    if len(places) < 2:  # too few groups to meet the shares: all but the largest may be held out
        places = np.delete(np.arange(len(sizes)), len(sizes) - 1 - np.argmax(sizes[::-1]))
    for_train = int(len(places) == len(sizes))  # one has to be left for train, where none is there yet
    for name, share, spare in (("test", params.test, 1 + for_train), ("validation", params.validation, for_train)):
        middles = np.cumsum(sizes[places]) - sizes[places] / 2
        taken = min(max(1, int(np.searchsorted(middles, share * total, "right"))), max(0, len(places) - spare))
        names[places[:taken]] = name
        places = places[taken:]
    return pl.Series("drawn", names)


def _by_time(units: pl.DataFrame, params: Split, missing: list[str]) -> pl.DataFrame:
    """Place groups by their newest row: the newest in test, those before in validation, the rest in train.

    Groups of the same time stand in the order of a seeded hash, those without any time count as the oldest.
    """
    units = units.sort("time", "draw", "unit", descending=[True, False, False], nulls_last=True)
    sizes = units["rows"].to_numpy()
    middles = np.cumsum(sizes) - sizes / 2
    names = np.full(len(sizes), "train", dtype=object)
    start, share = 0, 0.0
    for name in missing:
        share += getattr(params, name) * int(sizes.sum())
        end = max(start + 1, int(np.searchsorted(middles, share, "right")))
        names[start:end] = name
        start = end
    return units.with_columns(drawn=pl.Series(names))
