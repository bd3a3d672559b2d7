"""Which split and which fold a row belongs to: by official split first, then by group, at random or by time.

Groups stand in the order of a seeded hash of their name, so that a row that is added later moves hardly any other one,
and a champion is not scored on rows that it was trained on.
"""

import re
from datetime import UTC, datetime

import numpy as np
import polars as pl

from stages.common.digests import hash_order, seeded_hash
from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params.clean import Split
from stages.common.pipeline.validation import check_label_counts, most_rejecting
from stages.common.schemas import SPLITS, CleanRecords, Rejected

# The name of a row's group; a row without one is a group of its own.
GROUP = pl.coalesce(pl.lit("group ") + pl.col("group"), pl.lit("row ") + pl.col("id")).alias("name")

# Years, months and days alone count from their beginning. 2024-05-03, 2024-05-03T12:30:15.25+02:00, 20240503T123015Z
ISO = re.compile(r"[0-9]{4}(-[0-9]{2}|-?[0-9]{2}-?[0-9]{2}(?P<clock>[T ][0-9:.,]+ ?(?P<zone>Z|UTC|[+-][0-9:]+)?)?)?")
UNIX = re.compile(r"(?P<seconds>[0-9]{9,11}(\.[0-9]{1,9})?)|(?P<milliseconds>[0-9]{13})")
# A date with an hour, or seconds: of 2030 and later in the one reading, of 1900 to 2099 in the other.
TEN_DIGITS = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])")


def split_records(
    records: pl.DataFrame, params: Split, seed: int, rejected: pl.DataFrame | None = None
) -> dict[str, pl.DataFrame]:
    """Divide raw records into the train, validation and test of clean ones, each sorted by id.

    A row with an official split goes there. The others are divided by group (a row without one is its own group):
    at random with the same label shares everywhere, as well as groups allow, or by time, the newest into test. Where
    all rows have an official split and it lacks validation or test, these are drawn from its train in the same way.

    Args:
        records: what the rules have left.
        params: shares, and by what to divide.
        seed: of the hash that groups are ordered by.
        rejected: schema Rejected, for messages: the rules may be why there are too few rows.

    Raises:
        AttuneError: if there are too few rows, one label alone, or a label missing from a split.
    """
    out = (Rejected.empty() if rejected is None else rejected).lazy()
    check_label_counts(dict(records["label"].value_counts().sort("label").iter_rows()), "after cleaning", out)
    keys = records.select("id", "group", "label", "split", "timestamp")
    split = _splits(keys, params, seed)
    fold = pl.Series([None], dtype=pl.Int16).new_from_index(0, keys.height)
    if params.folds:
        outside = (split != "test").arg_true()
        fold = fold.scatter(outside, assign_folds(keys[outside], params.folds, seed))
    placed = records.with_columns(split=split, fold=fold)
    splits = {name: placed.filter(split=name).sort("id").select(CleanRecords.columns()) for name in SPLITS}
    for name, rows in splits.items():
        if rows.is_empty():
            raise AttuneError(
                f"the {name} split would be empty",
                "give it rows in the split column, or leave columns.split out; "
                "if there are groups, there may be too few, or one may hold too many rows"
                + (f"; {why}" if (why := most_rejecting(out, records.height)) else ""),
            )
        if missing := sorted(set(records["label"].unique()) - set(rows["label"].unique())):
            raise AttuneError(
                f"the {name} split ({rows.height} rows) would hold no row with the label {display(missing[0], 60)!r}",
                most_rejecting(out.filter(label=missing[0]), records.filter(label=missing[0]).height)
                or "add rows of that label, change clean.split or seed, or leave the label out through ingest.labels",
            )
    return splits


def _splits(keys: pl.DataFrame, params: Split, seed: int) -> pl.Series:
    """Return the split of each row: its own, else its group's, else one that is sampled where a split is missing."""
    official = keys.drop_nulls("split")
    by_group = official.drop_nulls("group").group_by("group").agg(group_split=pl.col("split").min())
    joined = keys.join(by_group, on="group", how="left", maintain_order="left")
    given = joined.select(pl.coalesce("split", "group_split")).to_series()
    missing = [name for name in ("test", "validation") if name not in set(official["split"].unique())]
    if missing and not given.has_nulls():
        given = given.set(given == "train", None)
    others = keys.filter(given.is_null())
    if not missing or others.is_empty():
        return given.fill_null("train")
    if params.by == "time":
        groups = _groups(others.with_columns(read_times(others["timestamp"])["time"]), str(seed))
        groups = _split_by_time(groups, params, missing)
    else:
        groups = _groups(others, str(seed)).sort("label", "order", "name")
        strata = groups.partition_by("label", maintain_order=True)
        groups = pl.concat([part.with_columns(_split_at_random(part["rows"].to_numpy(), params)) for part in strata])
    sampled = keys.select(GROUP).join(groups, on="name", how="left", maintain_order="left")["sampled"]
    into_missing = pl.when(sampled.is_in(missing)).then(sampled).otherwise(pl.lit("train"))
    return pl.select(pl.coalesce(given, into_missing)).to_series()


def _split_at_random(sizes: np.ndarray, params: Split) -> pl.Series:
    """Return the split of each group of so many rows, in their order; each split gets one if there are three groups."""
    total = int(sizes.sum())
    names = np.full(len(sizes), "train", dtype=object)
    # A group that is larger than what is held out can only be trained on.
    free = np.flatnonzero(sizes <= (params.test + params.validation) * total)
    if len(free) < 2:  # too few groups to meet the shares: all but the largest may be held out
        free = np.delete(np.arange(len(sizes)), len(sizes) - 1 - np.argmax(sizes[::-1]))
    for_train = int(len(free) == len(sizes))  # one has to be left for train, where none is there yet
    for name, share, spare in (("test", params.test, 1 + for_train), ("validation", params.validation, for_train)):
        middles = np.cumsum(sizes[free]) - sizes[free] / 2
        count = min(max(1, int(np.searchsorted(middles, share * total, "right"))), max(0, len(free) - spare))
        names[free[:count]] = name
        free = free[count:]
    return pl.Series("sampled", names)


def _split_by_time(groups: pl.DataFrame, params: Split, missing: list[str]) -> pl.DataFrame:
    """Place groups by their newest row: the newest in test, those before in validation, the rest in train.

    Groups of the same time stand in the order of a seeded hash, those without any time count as the oldest.
    """
    groups = groups.sort("time", "order", "name", descending=[True, False, False], nulls_last=True)
    sizes = groups["rows"].to_numpy()
    middles = np.cumsum(sizes) - sizes / 2
    names = np.full(len(sizes), "train", dtype=object)
    start, share = 0, 0.0
    for name in missing:
        share += getattr(params, name) * int(sizes.sum())
        end = max(start + 1, int(np.searchsorted(middles, share, "right")))
        names[start:end] = name
        start = end
    return groups.with_columns(sampled=pl.Series(names))


def assign_folds(rows: pl.DataFrame, folds: int, seed: int) -> pl.Series:
    """Return the fold of each row, Int16 from 0 to folds - 1, the same in any order of the rows.

    Each label's groups stand in the order of a seeded hash around a circle, cut into as many arcs of equal weight as
    there are folds; where the first arc begins is sampled for each label, so that rare labels do not all fill the same
    folds. The hash is another one than that of the split, or validation would be a fold.

    Args:
        rows: `id`, `group` and `label` of the rows outside test.
        folds: how many.
        seed: the pipeline's.

    Raises:
        AttuneError: if a fold would be empty.
    """
    groups = _groups(rows, f"{seed} fold").sort("label", "order", "name")
    placed = []
    for stratum in groups.partition_by("label", maintain_order=True):
        start = seeded_hash(f"{seed} arc", stratum["label"][0]) / 2**64
        sizes = stratum["rows"].to_numpy()
        weights = np.minimum(sizes, sizes.sum() / folds)  # a group larger than a fold counts as one
        middles = (np.cumsum(weights) - weights / 2) / weights.sum()
        fold = np.floor(middles * folds + start * folds).astype(np.int16) % folds
        placed.append(stratum.select("name", fold=pl.Series(fold, dtype=pl.Int16)))
    fold = rows.select(GROUP).join(pl.concat(placed), on="name", how="left", maintain_order="left")["fold"]
    if (filled := fold.n_unique()) < folds:
        raise AttuneError(
            f"clean.split.folds asks for {folds} folds, but the rows outside test fill {filled}",
            f"they are {groups.height} groups (a row without one is its own): ask for fewer folds",
        )
    return fold


def _groups(rows: pl.DataFrame, seed: str) -> pl.DataFrame:
    """Return the groups of rows that have `id`, `group`, `label` and maybe `time`, in no particular order.

    Returns:
        name; rows: how many; label: the commonest, the first by name of several; time: the newest, null without any;
        order (uint64): hash of seed and name.
    """
    if "time" not in rows.columns:
        rows = rows.with_columns(time=pl.lit(None, pl.Int8))
    alone = rows.filter(pl.col("group").is_null()).select(GROUP, "label", "time", rows=pl.lit(1, pl.Int64))
    per_label = rows.drop_nulls("group").group_by(GROUP, "label").agg(pl.col("time").max(), rows=pl.len())
    together = (
        per_label.sort("rows", "label", descending=[True, False])
        .group_by("name")
        .agg(pl.col("label").first(), pl.col("time").max(), pl.col("rows").sum().cast(pl.Int64))
    )
    return pl.concat([alone, together]).with_columns(order=hash_order("name", seed))


def read_times(texts: pl.Series) -> pl.DataFrame:
    """Read when each row was made, from the text that its source gives.

    ISO 8601 (a year, a month, a day or a time, with or without a zone), or Unix time in seconds or milliseconds. A time
    without a zone counts as UTC, also beside others that have one. Other digits that may be a date with a time of day
    (YYYYMMDDHH and on) or a month (YYYYMM) are not guessed at.

    Returns:
        time: Datetime in microseconds of UTC, null where the text is missing or cannot be read;
        no_zone: whether it names a time of day without a zone.
    """
    distinct = texts.drop_nulls().unique()
    read = [_read_time(text.strip().upper()) for text in distinct]
    known = pl.DataFrame({"text": distinct}, schema={"text": pl.String}).with_columns(
        time=pl.Series([time for time, _ in read], dtype=pl.Datetime("us")),
        no_zone=pl.Series([no_zone for _, no_zone in read], dtype=pl.Boolean),
    )
    times = texts.to_frame("text").join(known, on="text", how="left", maintain_order="left")
    return times.select("time", pl.col("no_zone").fill_null(False))


def _read_time(text: str) -> tuple[datetime | None, bool]:
    """Return the time of one text, stripped and in capitals, and whether it lacks the zone it should have."""
    try:
        if (unix := UNIX.fullmatch(text)) and not TEN_DIGITS.fullmatch(text):
            whole, _, fraction = (unix["seconds"] or f"{text[:-3]}.{text[-3:]}").partition(".")
            time = datetime.fromtimestamp(int(whole), UTC).replace(microsecond=int(fraction[:6].ljust(6, "0")))
        elif iso := ISO.fullmatch(text):
            whole = f"{text}-01-01"[:10] if len(text) < 8 else re.sub(" (?=[Z+-])", "", text.replace("UTC", "Z"))
            time = datetime.fromisoformat(whole)
            if iso["clock"] and not iso["zone"]:
                return time, True
            time = time.astimezone(UTC) if iso["zone"] else time
        else:
            return None, False
    except (ValueError, OverflowError):
        return None, False
    return time.replace(tzinfo=None), False
