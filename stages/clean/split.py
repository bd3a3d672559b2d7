"""Which split and which fold a row belongs to: by official split first, then by group, at random or by time.

A seeded hash of a group's name alone says where it goes, but for strata that chance left short: a row that is added or
relabelled moves hardly any other, and a champion is not scored on rows that it was trained on.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime

import numpy as np
import polars as pl

from stages.common.digests import hash_order
from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params.clean import Split
from stages.common.pipeline.validation import most_rejecting
from stages.common.schemas import SPLITS, CleanRecords, Rejected

# The name of a row's group; a row without one is a group of its own.
GROUP = pl.coalesce(pl.lit("group ") + pl.col("group"), pl.lit("row ") + pl.col("id")).alias("name")
REPEAT = r"^(row .+)\.[0-9]+$"  # `ingest` numbers rows with the same texts; which of them is left must not decide

# Years, months and days alone count from their beginning. 2024-05-03, 2024-05-03T12:30:15.25+02:00, 20240503T123015Z
ISO = re.compile(r"[0-9]{4}(-[0-9]{2}|-?[0-9]{2}-?[0-9]{2}(?P<clock>[T ][0-9:.,]+ ?(?P<zone>Z|UTC|[+-][0-9:]+)?)?)?")
UNIX = re.compile(r"(?P<seconds>[0-9]{9,11}(\.[0-9]{1,9})?)|(?P<milliseconds>[0-9]{13})")
# A date with an hour, or seconds: of 2030 and later in the one reading, of 1900 to 2099 in the other.
TEN_DIGITS = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])")


def split_records(
    records: pl.DataFrame,
    params: Split,
    seed: int,
    rejected: pl.DataFrame | None = None,
    required: Collection[str] | None = None,
) -> dict[str, pl.DataFrame]:
    """Divide raw records into the train, validation and test of clean ones, each sorted by id.

    A row with an official split goes there. The others are divided by group (a row without one is its own group):
    by a seeded hash of the group's name, or by time, the newest into test. Where all rows have an official split and it
    lacks validation or test, these are drawn from its train in the same way.

    `records` are what the rules have left, with a `stratum` (String) of which each split is to hold some; `required`
    are strata that no split may lack (labels; None: all of them). An AttuneError if a split would be empty, or lack a
    stratum of which there are rows enough; the rows that were `rejected` (schema Rejected) may be why.
    """
    out = (Rejected.empty() if rejected is None else rejected).lazy()
    keys = records.select("id", "group", "stratum", "split", "timestamp")
    split = _splits(keys, params, seed)
    fold = pl.Series([None], dtype=pl.Int16).new_from_index(0, keys.height)
    if params.folds:
        outside = (split != "test").arg_true()
        fold = fold.scatter(outside, assign_folds(keys[outside], params.folds, seed))
    placed = records.with_columns(split=split, fold=fold)
    splits = {name: placed.filter(split=name).sort("id") for name in SPLITS}
    large = set(records.filter(pl.len().over("stratum") >= len(SPLITS))["stratum"])
    large &= large if required is None else {*required}
    for name, rows in splits.items():
        if rows.is_empty():
            raise AttuneError(
                f"the {name} split would be empty",
                "give it rows in the split column, or leave columns.split out; "
                "if there are groups, there may be too few, or one may hold too many rows"
                + (f"; {why}" if (why := most_rejecting(out, records.height)) else ""),
            )
        if missing := sorted(large - set(rows["stratum"].unique())):
            raise AttuneError(
                f"the {name} split ({rows.height} rows) would hold no row with the label {display(missing[0], 60)!r}",
                most_rejecting(out.filter(label=missing[0]), records.filter(stratum=missing[0]).height)
                or "add rows of that label, change clean.split or seed, or leave the label out through ingest.labels",
            )
    return {name: rows.select(CleanRecords.columns()) for name, rows in splits.items()}


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
        groups = _split_at_random(_groups(others, str(seed)), params, missing)
    sampled = keys.select(GROUP).join(groups, on="name", how="left", maintain_order="left")["sampled"]
    return pl.select(pl.coalesce(given, sampled)).to_series()


def _split_at_random(groups: pl.DataFrame, params: Split, missing: list[str]) -> pl.DataFrame:
    """Place groups by where their hash lies between 0 and 1: test, then validation, then train."""
    held_out = params.test + params.validation
    most = held_out * int(groups["rows"].sum())  # a larger group can only be trained on
    u = pl.when(pl.col("rows") <= most).then("u")
    drawn = pl.when(u < params.test).then(pl.lit("test")).when(u < held_out).then(pl.lit("validation"))
    place = drawn.replace_strict({name: place for place, name in enumerate(missing, 1)}, default=0)
    shares = [0.0, *(getattr(params, name) for name in missing)]
    groups = _corrected(groups.with_columns(place=place), shares, most, at_least=1)
    return groups.with_columns(sampled=pl.Series(["train", *missing]).gather(groups["place"]))


def _split_by_time(groups: pl.DataFrame, params: Split, missing: list[str]) -> pl.DataFrame:
    """Place groups by their newest row: the newest in test, those before in validation, the rest in train.

    Groups of the same time stand in the order of a seeded hash, those without any time count as the oldest.
    """
    groups = groups.sort("time", "u", "name", descending=[True, False, False], nulls_last=True)
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

    It is where a seeded hash of the group's name lies between 0 and 1: another hash than that of the split, or
    validation would be a fold. The rows are those outside test, with `id`, `group` and `stratum`. An AttuneError if a
    fold would be empty.
    """
    groups = _groups(rows, f"{seed} fold").with_columns(place=(pl.col("u") * folds).floor())
    groups = _corrected(groups, [1 / folds] * folds, rows.height / folds, at_least=0)
    fold = rows.select(GROUP).join(groups, on="name", how="left", maintain_order="left")["place"]
    if (filled := fold.n_unique()) < folds:
        what = f"clean.split.folds asks for {folds} folds, but the rows outside test fill {filled}"
        raise AttuneError(what, f"they are {groups.height} groups (a row without one is its own): ask for fewer folds")
    return fold


def _corrected(groups: pl.DataFrame, shares: list[float], most: float, at_least: int) -> pl.DataFrame:
    """Return the groups with `place` corrected where chance gave a place too few rows of a stratum, or none at all.

    The groups are as `_groups` has them, with the `place` of each, from 0. Too few are less than `at_least`, or than
    half the share of the place, of the rows in groups that are not large. A large group, one of more than `most` rows,
    is moved only to a place that has none.
    """
    groups = groups.sort("stratum", "u", "name")
    sizes, place = groups["rows"].to_numpy(), groups["place"].cast(pl.Int64).to_numpy().copy()
    large = np.where(sizes > most, sizes, 0)
    starts = np.flatnonzero(np.diff(groups["stratum"].rle_id().to_numpy())) + 1
    for part in np.split(np.arange(len(sizes)), starts):
        due = np.array(shares) * (sizes - large)[part].sum()
        place[part] = _filled(place[part], sizes[part], large[part], due, np.maximum(at_least, due // 2))
    everything, none = np.argsort(groups["u"].to_numpy(), kind="stable"), np.zeros(len(shares))
    place[everything] = _filled(place[everything], sizes[everything], large[everything], none, none + 1)
    return groups.with_columns(place=pl.Series(place, dtype=pl.Int16))


def _filled(place: np.ndarray, sizes: np.ndarray, large: np.ndarray, due: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Return the places of groups [n], after each place with too few rows took the first groups of others.

    It takes from where most rows are above what is due, and a large group, the smallest, only if it has none at all.
    """
    place = place.copy()
    for needy, least in enumerate(enough):
        while (rows := np.bincount(place, sizes, len(enough)))[needy] < least:
            groups = np.bincount(place, minlength=len(enough))
            spare = np.flatnonzero((place != needy) & (groups[place] > 1) & ((large == 0) | (rows[needy] == 0)))
            if not spare.size:
                break
            first = spare[np.lexsort(((due - rows)[place[spare]], large[spare]))[0]]
            alike = np.flatnonzero((place == place[first]) & (large == large[first]))
            count = 1 + int(np.searchsorted(np.cumsum(sizes[alike]), least - rows[needy]))
            place[alike[: min(count, groups[place[first]] - 1)]] = needy  # each place keeps a group
    return place


def _groups(rows: pl.DataFrame, seed: str) -> pl.DataFrame:
    """Return the groups of rows that have `id`, `group`, `stratum` and maybe `time`, in no particular order.

    Returns:
        name; rows: how many; stratum: the commonest, the first by name of several; time: the newest, null without any;
        u: hash of seed and name, from 0 to less than 1. That of a row alone is of its texts: equal ones share it.
    """
    if "time" not in rows.columns:
        rows = rows.with_columns(time=pl.lit(None, pl.Int8))
    alone = rows.filter(pl.col("group").is_null()).select(GROUP, "stratum", "time", rows=pl.lit(1, pl.Int64))
    per_stratum = rows.drop_nulls("group").group_by(GROUP, "stratum").agg(pl.col("time").max(), rows=pl.len())
    together = (
        per_stratum.sort("rows", "stratum", descending=[True, False])
        .group_by("name")
        .agg(pl.col("stratum").first(), pl.col("time").max(), pl.col("rows").sum().cast(pl.Int64))
    )
    groups = pl.concat([alone, together])
    named = groups.select(pl.col("name").str.replace(REPEAT, "$1"))
    return groups.with_columns(u=named.select(hash_order("name", seed) // 2**11 / 2**53).to_series())


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
