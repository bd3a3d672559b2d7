"""What the splits hold, and what they share: `reports/splits.json`, computed from the finished splits alone."""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from stages.clean.timestamps import read_times
from stages.common.near_duplicates import nearest_among
from stages.common.params.clean import CleanParams, NearDuplicates
from stages.common.schemas import SPLITS
from stages.common.shown import Mask, shown
from stages.common.texts import same_text_key, whole_text

ROWS = 50_000  # of each split that are compared for near-duplicates; of more, so many are drawn
LABELS = 200  # listed, the commonest; the others are counted together
EXAMPLES = 5
NAME = 80  # characters shown of a label or a group
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def split_report(
    splits: dict[str, pl.DataFrame], params: CleanParams, seed: int, mask: Mask | None = None
) -> dict[str, Any]:
    """Describe each split and look for rows that two of them share; the same in any order of the rows.

    Near-duplicates are sought with other MinHash permutations than those by which `clean` rejected them.

    Args:
        splits: schema CleanRecords.
        params: what counts as a near-duplicate.
        seed: of the permutations, and of the sample where there are very many rows.
        mask: replaces personal data in the names of groups.

    Raises:
        RuntimeError: if a text is in two splits, which `exact_duplicate` rules out.
    """
    ordered = {name: splits[name].sort("id") for name in SPLITS}
    pairs = {
        f"{one} / {other}": _shared(ordered[one], ordered[other], params.near_duplicates, seed, mask)
        for one, other in combinations(SPLITS, 2)
    }
    for name, pair in pairs.items():
        if pair["equal_texts"]["rows"]:
            raise RuntimeError(f"{name} share texts, such as the rows {pair['equal_texts']['examples'][0]}")
    return {
        "splits": {name: describe(rows) for name, rows in ordered.items()},
        "shared": pairs,
        "near_duplicates_from": params.near_duplicates.threshold,
        "warnings": [
            *_warnings(pairs, params.near_duplicates),
            *(_out_of_time(ordered) if params.split.by == "time" else []),
        ],
    }


def describe(rows: pl.DataFrame) -> dict[str, Any]:
    """Return rows, groups, labels, lengths in characters, times and folds of one split."""
    lengths = rows["text"].str.len_chars()
    counts = rows["label"].value_counts().sort("count", "label", descending=[True, False])
    listed = counts.head(LABELS)
    return {
        "rows": rows.height,
        "groups": rows["group"].drop_nulls().n_unique() if rows["group"].count() else None,
        "labels": [
            {"label": shown(label, NAME), "rows": count, "share": round(count / rows.height, 4)}
            for label, count in listed.iter_rows()
        ],
        "other_labels": {"labels": counts.height - listed.height, "rows": rows.height - int(listed["count"].sum())},
        "characters": {
            f"{quantile:.0%}": None if rows.is_empty() else int(lengths.quantile(quantile, "nearest") or 0)
            for quantile in QUANTILES
        },
        "times": _times(rows),
        "folds": {str(fold): count for fold, count in _counted(rows["fold"])} or None,
    }


def _counted(values: pl.Series) -> list[tuple[Any, int]]:
    return list(values.drop_nulls().value_counts().sort(values.name).iter_rows())


def _times(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Return the oldest and the newest time, and what could not be read; None where no row has one."""
    texts = rows["timestamp"]
    if not texts.count():
        return None
    read = read_times(texts)
    shown = read.select(
        oldest=pl.col("time").min().dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        newest=pl.col("time").max().dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    ).row(0, named=True)
    return {
        **shown,
        "unreadable": int(read["time"].null_count()),
        "taken_as_utc": int(read["no_zone"].sum()),  # they name a time of day, but no zone
    }


def _shared(
    one: pl.DataFrame, other: pl.DataFrame, near: NearDuplicates, seed: int, mask: Mask | None
) -> dict[str, Any]:
    groups = one.select("group").drop_nulls().unique().join(other.select("group").unique(), on="group", how="semi")
    equal = _equal(one, other)
    return {
        "groups": {
            "groups": groups.height,
            "examples": [shown(name, NAME, mask) for name in groups["group"].sort().head(EXAMPLES)],
        },
        "equal_texts": {"rows": equal.height, "examples": [list(row) for row in equal.head(EXAMPLES).iter_rows()]},
        "near_duplicates": _near(one, other, near, seed),
    }


def _equal(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of ids whose texts are the same but for case; hashes first, to hold no second copy of them."""
    alike = one.select("id", key=same_text_key().hash()).join(
        other.select(key=same_text_key().hash(), other="id"), on="key"
    )
    known = one.join(alike, on="id", how="semi").select("id", key=same_text_key())
    return (
        other.join(alike, left_on="id", right_on="other", how="semi")
        .select(key=same_text_key(), other="id")
        .join(known, on="key")
        .select("id", "other")
        .sort("id", "other")
    )


def _near(one: pl.DataFrame, other: pl.DataFrame, near: NearDuplicates, seed: int) -> dict[str, Any]:
    """Look in `one` for the nearest text of each of `other`."""
    known, new = _drawn(one, seed), _drawn(other, seed)
    position, similarity = nearest_among(
        whole_text(new), whole_text(known), near.threshold, near.shingle_size, near.num_perm, seed + 2
    )
    found = np.flatnonzero(position >= 0)
    worst = found[np.argsort(-similarity[found], kind="stable")][:EXAMPLES]
    return {
        "rows": len(found),
        "highest_similarity": round(float(similarity[worst[0]]), 4) if len(found) else None,
        "examples": [
            [known["id"][int(position[at])], new["id"][int(at)], round(float(similarity[at]), 4)] for at in worst
        ],
        "compared": [known.height, new.height],
    }


def _drawn(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    if rows.height <= ROWS:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(rows.height, ROWS, replace=False))]


def _out_of_time(splits: dict[str, pl.DataFrame]) -> list[str]:
    """Say where a split by time is none: a group stays whole, and so takes its older rows along."""
    newest = read_times(splits["train"]["timestamp"])["time"].max()
    told = []
    for name in ("validation", "test"):
        older = int((read_times(splits[name]["timestamp"])["time"] < newest).sum())
        if older:
            told.append(
                f"{name}: {older:,} of {splits[name].height:,} rows are older than the newest row of train, because "
                "groups stay whole (or the split is official); without columns.group the split is by time alone"
            )
    return told


def _warnings(pairs: dict[str, Any], near: NearDuplicates) -> list[str]:
    """Say what is shared all the same: the official split is honoured as it is, and MinHash misses one pair in 1000."""
    told = []
    for name, pair in pairs.items():
        if groups := pair["groups"]["groups"]:
            told.append(f"{name}: {groups} groups are in both, as the official split has it: {_listed(pair['groups'])}")
        if rows := pair["near_duplicates"]["rows"]:
            why = "MinHash missed them" if near.enabled else "clean.near_duplicates is off"
            told.append(f"{name}: {rows} rows of the second nearly equal one of the first ({why})")
    return told


def _listed(found: dict[str, Any]) -> str:
    return ", ".join(found["examples"]) + (", …" if found["groups"] > len(found["examples"]) else "")
