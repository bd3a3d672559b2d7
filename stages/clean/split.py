"""Three splits that share no group: by official split first, then by group, stratified by label, seeded."""

from hashlib import sha256

import polars as pl

from stages.common.errors import AttuneError
from stages.common.labels import check_labels
from stages.common.params.model import Split
from stages.common.schemas import SPLITS, RawRecords


def split_records(records: pl.DataFrame, params: Split, seed: int) -> dict[str, pl.DataFrame]:
    """Part records into train, validation and test.

    A row with an official split goes there. The others are parted by group (a row without one is its own group) with
    the same label shares everywhere, as well as groups allow.

    Raises:
        AttuneError: if there are too few rows, one label alone, or a label missing from a split.
    """
    check_labels(records["label"], "after cleaning")
    official = records.filter(pl.col("split").is_not_null())
    free = records.filter(pl.col("split").is_null())
    placed = [official]
    if not free.is_empty():
        if official.is_empty():
            placed.append(_place(free, params, seed))
        else:
            placed.append(_fill(free, official, params, seed))
    whole = pl.concat(placed)
    splits = {name: whole.filter(pl.col("split") == name).sort("id") for name in SPLITS}
    _check_labels(splits)
    return splits


def _fill(free: pl.DataFrame, official: pl.DataFrame, params: Split, seed: int) -> pl.DataFrame:
    """Place rows beside an official split: with their group where it has a place, else into what is still missing."""
    homes = official.filter(pl.col("group").is_not_null()).group_by("group").agg(pl.col("split").min().alias("home"))
    joined = free.join(homes, on="group", how="left", maintain_order="left")
    housed = joined.filter(pl.col("home").is_not_null()).with_columns(split=pl.col("home")).drop("home")
    loose = joined.filter(pl.col("home").is_null()).drop("home")
    present = set(official["split"].unique())
    if present == set(SPLITS) or ("validation" in present and "test" in present):
        return pl.concat([housed, loose.with_columns(split=pl.lit("train"))])
    if loose.is_empty():
        return housed
    placed = _place(loose, params, seed)
    return pl.concat(
        [
            housed,
            placed.with_columns(split=pl.when(pl.col("split").is_in(present)).then(pl.lit("train")).otherwise("split")),
        ]
    )


def _place(records: pl.DataFrame, params: Split, seed: int) -> pl.DataFrame:
    """Give every row a split, the same in any order of the rows.

    Groups are drawn in the order of a seeded hash of their name, each label's groups on their own (a group counts
    under its commonest label). A row that is added later therefore moves hardly any other one, and a champion is not
    scored on rows that it was trained on.
    """
    unit = pl.coalesce(pl.lit("group ") + pl.col("group"), pl.lit("row ") + pl.col("id"))
    records = records.with_columns(unit=unit)
    units = records.group_by("unit").agg(rows=pl.len(), label=pl.col("label").mode().min())
    draw = pl.col("unit").map_elements(
        lambda name: sha256(f"{seed} {name}".encode()).hexdigest(), return_dtype=pl.String
    )
    units = units.with_columns(draw=draw).sort("label", "draw")
    placed = [
        stratum.with_columns(split=pl.Series(_draw(stratum["rows"].to_list(), params)))
        for stratum in units.partition_by("label")
    ]
    return records.drop("split").join(pl.concat(placed).select("unit", "split"), on="unit").select(RawRecords.columns())


def _draw(sizes: list[int], params: Split) -> list[str]:
    """Return the split of each group, in the order drawn; every split gets one as long as there are three."""
    total = sum(sizes)
    names = ["train"] * len(sizes)
    # A group that is larger than what is held out can only be trained on.
    open_places = [at for at, size in enumerate(sizes) if size <= (params.test + params.validation) * total]
    if len(open_places) < 2:  # too few groups to meet the shares: all but the largest may be held out
        largest = max(range(len(sizes)), key=lambda at: (sizes[at], at))
        open_places = [at for at in range(len(sizes)) if at != largest]
    for_train = int(len(open_places) == len(sizes))  # one has to be left for train, where none is there yet
    for name, share, spare in (("test", params.test, 1 + for_train), ("validation", params.validation, for_train)):
        taken = 0
        while len(open_places) > spare and (taken == 0 or taken + sizes[open_places[0]] / 2 <= share * total):
            at = open_places.pop(0)
            names[at] = name
            taken += sizes[at]
    return names


def _check_labels(splits: dict[str, pl.DataFrame]) -> None:
    labels = sorted({label for rows in splits.values() for label in rows["label"].unique()})
    for name, rows in splits.items():
        if rows.is_empty():
            raise AttuneError(
                f"the {name} split would be empty", "give it rows in the split column, or leave columns.split out"
            )
        missing = [label for label in labels if label not in set(rows["label"])]
        if missing:
            raise AttuneError(
                f"the {name} split ({rows.height} rows) would hold no row with the label {missing[0]!r}",
                "add rows of that label, change clean.split or seed, or leave the label out through ingest.labels",
            )
