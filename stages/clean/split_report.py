"""What the splits hold, and what they share: `reports/splits.json`, computed from the finished splits alone."""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from stages.clean.timestamps import read_times
from stages.common.display import Mask, display
from stages.common.params.clean import CleanParams, NearDuplicates
from stages.common.schemas import SPLITS
from stages.common.text.columns import same_text_key, whole_text
from stages.common.text.near_duplicates import nearest_among

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
    near, pairs, warnings = params.near_duplicates, {}, []
    for first, second in combinations(SPLITS, 2):
        one, other, pair = ordered[first], ordered[second], f"{first} / {second}"
        keys = [rows.select("id", key=same_text_key().hash()) for rows in (one, other)]
        if not (equal := keys[0].join(keys[1], on="key").sort("id", "id_right")).is_empty():
            raise RuntimeError(f"{pair} share texts, such as the rows {equal['id'][0]} and {equal['id_right'][0]}")
        groups = sorted(set(one["group"].drop_nulls()) & set(other["group"].drop_nulls()))
        examples = [display(name, NAME, mask) for name in groups[:EXAMPLES]]
        pairs[pair] = {
            "groups": {"groups": len(groups), "examples": examples},
            "equal_texts": {"rows": 0, "examples": []},
            "near_duplicates": _near(one, other, near, seed),
        }
        if groups:
            listed = ", ".join(examples) + (", …" if len(groups) > EXAMPLES else "")
            warnings.append(f"{pair}: {len(groups)} groups are in both, as the official split has it: {listed}")
        if rows := pairs[pair]["near_duplicates"]["rows"]:
            why = "MinHash missed them" if near.enabled else "clean.near_duplicates is off"
            warnings.append(f"{pair}: {rows} rows of the second nearly equal one of the first ({why})")
    if params.split.by == "time":
        warnings += _out_of_time(ordered)
    return {
        "splits": {name: describe(rows) for name, rows in ordered.items()},
        "shared": pairs,
        "near_duplicates_from": near.threshold,
        "warnings": warnings,
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
            {"label": display(label, NAME), "rows": count, "share": round(count / rows.height, 4)}
            for label, count in listed.iter_rows()
        ],
        "other_labels": {"labels": counts.height - listed.height, "rows": rows.height - int(listed["count"].sum())},
        "characters": {f"{quantile:.0%}": int(lengths.quantile(quantile, "nearest") or 0) for quantile in QUANTILES},
        "times": _times(rows["timestamp"]) if rows["timestamp"].count() else None,
        "folds": {str(fold): count for fold, count in rows["fold"].drop_nulls().value_counts().sort("fold").iter_rows()}
        or None,
    }


def _times(texts: pl.Series) -> dict[str, Any]:
    """Return the oldest and the newest time, and how many cannot be read or lack a zone."""
    read = read_times(texts)
    times = read["time"].drop_nulls().sort().dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "oldest": times.first(),
        "newest": times.last(),
        "unreadable": read["time"].null_count(),
        "taken_as_utc": int(read["no_zone"].sum()),
    }


def _near(one: pl.DataFrame, other: pl.DataFrame, near: NearDuplicates, seed: int) -> dict[str, Any]:
    """Look in `one` for the nearest text of each of `other`."""
    known, new = (
        rows[np.sort(np.random.default_rng(seed).choice(rows.height, ROWS, replace=False))]
        if rows.height > ROWS
        else rows
        for rows in (one, other)
    )
    position, similarity = nearest_among(
        whole_text(new), whole_text(known), near.threshold, near.shingle_size, near.num_perm, seed + 2
    )
    found = np.flatnonzero(position >= 0)
    worst = found[np.argsort(-similarity[found], kind="stable")][:EXAMPLES]
    examples = [[known["id"][int(position[at])], new["id"][int(at)], round(float(similarity[at]), 4)] for at in worst]
    return {
        "rows": len(found),
        "highest_similarity": examples[0][2] if examples else None,
        "examples": examples,
        "compared": [known.height, new.height],
    }


def _out_of_time(splits: dict[str, pl.DataFrame]) -> list[str]:
    """Say where a split by time is none: a group stays whole, and so takes its older rows along."""
    times = {name: read_times(rows["timestamp"])["time"] for name, rows in splits.items()}
    older = {name: int((times[name] < times["train"].max()).sum()) for name in ("validation", "test")}
    return [
        f"{name}: {count:,} of {splits[name].height:,} rows are older than the newest row of train, because "
        "groups stay whole (or the split is official); without columns.group the split is by time alone"
        for name, count in older.items()
        if count
    ]
