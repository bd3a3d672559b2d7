"""What the splits hold, and what they share: `reports/splits.json`, computed from the finished splits alone."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from stages.clean.split import read_times
from stages.common.display import Mask, display
from stages.common.params.clean import CleanParams, NearDuplicates
from stages.common.schemas import SPLITS
from stages.common.text.columns import same_text_key, whole_text
from stages.common.text.near_duplicates import nearest_among

ROWS = 50_000  # of each split that are compared for near-duplicates; of more, a sample
LABELS = 200  # listed, the commonest; the others are counted together
EXAMPLES = 5
NAME = 80  # characters of a label or a group
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def split_report(
    splits: dict[str, pl.DataFrame],
    labels: Mapping[str, Mapping[str, int]],
    params: CleanParams,
    seed: int,
    mask: Mask | None = None,
) -> dict[str, Any]:
    """Describe each split and look for rows that two of them share; the same in any order of the rows.

    Near-duplicates are sought with other MinHash permutations than those by which `clean` rejected them; the seed is of
    these, and of the sample where there are very many rows. `labels` are the rows of each name of a label, by split;
    `mask` replaces personal data in the names of groups. A RuntimeError if a text is in two splits, which
    `exact_duplicate` rules out.
    """
    ordered = {name: splits[name].sort("id") for name in SPLITS}
    near, pairs, warnings = params.near_duplicates, {}, []
    for first, second in combinations(SPLITS, 2):
        left, right, pair = ordered[first], ordered[second], f"{first} / {second}"
        keys = [rows.select("id", key=same_text_key().hash()) for rows in (left, right)]
        if not (equal := keys[0].join(keys[1], on="key").sort("id", "id_right")).is_empty():
            raise RuntimeError(f"{pair} share texts, such as the rows {equal['id'][0]} and {equal['id_right'][0]}")
        groups = sorted(set(left["group"].drop_nulls()) & set(right["group"].drop_nulls()))
        examples = [display(name, NAME, mask) for name in groups[:EXAMPLES]]
        near_duplicates = _near_duplicates(left, right, near, seed)
        pairs[pair] = {
            "groups": {"groups": len(groups), "examples": examples},
            "equal_texts": {"rows": 0, "examples": []},
            "near_duplicates": near_duplicates,
        }
        if groups:
            # A warning is a message, whatever the page shows.
            names = ", ".join(display(name, 60) for name in groups[:EXAMPLES]) + ", …" * (len(groups) > EXAMPLES)
            warnings.append(f"{pair}: {len(groups)} groups are in both, as the official split has it: {names}")
        if rows := near_duplicates["rows"]:
            why = "MinHash missed them" if near.enabled else "clean.near_duplicates is off"
            warnings.append(f"{pair}: {rows} rows of the second nearly equal one of the first ({why})")
    if params.split.by == "time":
        warnings += _older_than_train(ordered)
    return {
        "splits": {name: describe(rows, labels[name]) for name, rows in ordered.items()},
        "shared": pairs,
        "near_duplicates_from": near.threshold,
        "warnings": warnings,
    }


def official_warnings(official: pl.DataFrame, trained: pl.Series, splits: dict[str, pl.DataFrame]) -> list[str]:
    """Warn where the splits are not the official ones.

    `official` are the rows, and the rows without label, of each official split of the raw records; `trained` the ids of
    clean rows that are officially in train.
    """
    warnings = [
        f"{name}: {unlabelled:,} of the {rows:,} rows that are officially there have no label, and are rejected"
        for name, rows, unlabelled in official.sort("split").iter_rows()
        if unlabelled
    ]
    for name in ("validation", "test"):
        if drawn := splits[name]["id"].is_in(trained.implode()).sum():
            warnings.append(f"{name}: no official row is left for it, so {drawn:,} were drawn from the official train")
    return warnings


def describe(rows: pl.DataFrame, labels: Mapping[str, int]) -> dict[str, Any]:
    """Return rows, groups, labels, lengths in characters, times and folds of one split."""
    lengths, folds = rows["text"].str.len_chars(), rows["fold"].drop_nulls().value_counts().sort("fold")
    counts = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    read = read_times(rows["timestamp"])
    times = read["time"].drop_nulls().sort().dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    time_range = {
        "oldest": times.first(),
        "newest": times.last(),
        "unreadable": read["time"].null_count(),
        "taken_as_utc": int(read["no_zone"].sum()),
    }
    return {
        "rows": rows.height,
        "groups": rows["group"].drop_nulls().n_unique() if rows["group"].count() else None,
        "labels": [
            {"label": display(label, NAME, None), "rows": count, "share": round(count / rows.height, 4)}
            for label, count in counts[:LABELS]
        ],
        "other_labels": {"labels": len(counts[LABELS:]), "rows": sum(count for _, count in counts[LABELS:])},
        "characters": {f"{quantile:.0%}": int(lengths.quantile(quantile, "nearest") or 0) for quantile in QUANTILES},
        "times": time_range if rows["timestamp"].count() else None,
        "folds": {str(fold): count for fold, count in folds.iter_rows()} or None,
    }


def _near_duplicates(left: pl.DataFrame, right: pl.DataFrame, near: NearDuplicates, seed: int) -> dict[str, Any]:
    """Look in `left` for the nearest text of each of `right`."""
    known, new = (
        rows[np.sort(np.random.default_rng(seed).choice(rows.height, ROWS, replace=False))]
        if rows.height > ROWS
        else rows
        for rows in (left, right)
    )
    position, similarity = nearest_among(
        whole_text(new), whole_text(known), near.threshold, near.shingle_size, near.num_perm, seed + 2
    )
    matched = np.flatnonzero(position >= 0)
    worst = matched[np.argsort(-similarity[matched], kind="stable")][:EXAMPLES].tolist()
    examples = [[known["id"][int(position[row])], new["id"][row], round(float(similarity[row]), 4)] for row in worst]
    return {
        "rows": len(matched),
        "highest_similarity": examples[0][2] if examples else None,
        "examples": examples,
        "compared": [known.height, new.height],
    }


def _older_than_train(splits: dict[str, pl.DataFrame]) -> list[str]:
    """Warn where a split by time is none: a group stays whole, and so takes its older rows along."""
    times = {name: read_times(rows["timestamp"])["time"] for name, rows in splits.items()}
    older = {name: int((times[name] < times["train"].max()).sum()) for name in ("validation", "test")}
    return [
        f"{name}: {count:,} of {splits[name].height:,} rows are older than the newest row of train, because "
        "groups stay whole (or the split is official); without columns.group the split is by time alone"
        for name, count in older.items()
        if count
    ]
