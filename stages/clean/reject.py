"""Rules that keep rows out. Each parts records into (kept, rejected), the rejected ones with a `reason`.

No rule looks at the order of the rows: where one of several rows stays, it is the one of the weightiest official
split (test before validation before train, so that an official test set stays whole), then of the smallest id.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from stages.common.near_duplicates import deduplicate
from stages.common.texts import same_text_key, whole_text

Parted = tuple[pl.DataFrame, pl.DataFrame]
Rule = Callable[[pl.DataFrame], Parted]

SPLIT_WEIGHT = pl.col("split").replace_strict({"test": 0, "validation": 1, "train": 2}, default=3, return_dtype=pl.Int8)
CONTRARY = ", which has another label: "
LISTED = 5  # labels named in a reason
BATCH = 100_000  # texts hashed at once


def empty_text(records: pl.DataFrame) -> Parted:
    """No text is left after repair."""
    return _part(records, pl.col("text").is_null(), pl.lit("the text is empty"))


def unlabelled(records: pl.DataFrame) -> Parted:
    """No label."""
    return _part(records, pl.col("label").is_null() | (pl.col("label") == ""), pl.lit("there is no label"))


def out_of_length(records: pl.DataFrame, shortest: int, longest: int) -> Parted:
    """The text is shorter or longer (in characters) than the limits."""
    length = pl.col("text").str.len_chars()
    reason = pl.format(f"{{}} characters, outside {shortest} to {longest}", length)
    return _part(records, ~length.is_between(shortest, longest), reason)


def conflicting_labels(records: pl.DataFrame) -> Parted:
    """The same text stands under several labels: nobody knows which is right, so none stays."""
    same = _by_text(records)
    labels = records["label"].fill_null("").rank("dense").to_numpy()
    several = _of_text(np.minimum, labels, same) != _of_text(np.maximum, labels, same)
    marked = records.with_columns(_text=_of_text(np.minimum, np.arange(records.height), same), _several=several)
    some = pl.col("label").str.head(40).unique().sort()
    more = pl.when(pl.col("label").n_unique() > LISTED).then(pl.lit(", …")).otherwise(pl.lit(""))
    both = (some.head(LISTED).str.join(", ") + more).over("_text")
    kept, out = _part(marked, pl.col("_several"), pl.format("the same text has the labels {}", both))
    return kept.drop("_text", "_several"), out.drop("_text", "_several")


def exact_duplicate(records: pl.DataFrame) -> Parted:
    """The same text (without regard to case) as another row; one of them stays."""
    order = precedence(records).to_numpy()
    place = np.empty_like(order)
    place[order] = np.arange(len(order), dtype=order.dtype)
    first = order[_of_text(np.minimum, place, _by_text(records))]
    marked = records.with_columns(_first=records["id"].gather(first))
    kept, out = _part(marked, pl.col("id") != pl.col("_first"), pl.format("the same text as {}", "_first"))
    return kept.drop("_first"), out.drop("_first")


def near_duplicate(records: pl.DataFrame, threshold: float, shingle_size: int, num_perm: int) -> Parted:
    """Nearly the same text as a row that stays, so that no two kept rows nearly equal each other."""
    order = precedence(records)
    twin, similarity = deduplicate(whole_text(records).gather(order), threshold, shingle_size, num_perm)
    ids = records["id"].gather(order)
    found = pl.DataFrame({"id": ids, "_twin": twin, "_similarity": similarity}).filter(pl.col("_twin") >= 0)
    labels = records["label"].gather(order)
    reason = pl.format("near-duplicate of {} (similarity {})", "_twin", pl.col("_similarity").round(2).cast(pl.String))
    contrary = pl.when(pl.col("_label") != pl.col("_own")).then(pl.format("{}{}", pl.lit(CONTRARY), "_label"))
    reasons = found.with_columns(
        _twin=ids.gather(found["_twin"]),
        _label=labels.gather(found["_twin"]),
        _own=labels.filter(pl.Series(twin >= 0, dtype=pl.Boolean)),
    ).select("id", reason=reason + contrary.fill_null(""))
    kept = records.join(reasons, on="id", how="anti", maintain_order="left")
    return kept, records.join(reasons, on="id", maintain_order="left")


def precedence(records: pl.DataFrame) -> pl.Series:
    """Return the positions of the rows in the order in which they stay when one of several has to go."""
    return records.select(pl.arg_sort_by(SPLIT_WEIGHT, "id")).to_series()


def _part(records: pl.DataFrame, out: pl.Expr, reason: pl.Expr) -> Parted:
    marked = records.with_columns(_out=out.fill_null(False))
    kept, rejected = marked.filter(~pl.col("_out")).drop("_out"), marked.filter("_out").drop("_out")
    return kept, rejected.with_columns(reason=reason)


def _by_text(records: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Bring rows with the same text together; texts that differ in case alone are the same text.

    Returns:
        rows: int64, the positions of the records, those of one text after the other.
        starts: int64, where in `rows` each text begins.
    """
    keys = [np.empty(records.height, dtype=np.uint64) for _ in range(2)]  # 128 bits: no two texts share them
    for start in range(0, records.height, BATCH):
        texts = records.slice(start, BATCH).select(same_text_key()).to_series()
        for seed, key in enumerate(keys):
            key[start : start + len(texts)] = texts.hash(seed).to_numpy()
    rows = np.lexsort(keys)
    new = np.ones(len(rows), dtype=bool)
    new[1:] = np.any([key[rows][1:] != key[rows][:-1] for key in keys], axis=0)
    return rows, np.flatnonzero(new)


def _of_text(extreme: np.ufunc, values: np.ndarray, same: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Give each record the least or greatest value among the records of its text."""
    rows, starts = same
    result = np.empty_like(values)
    if len(rows):
        result[rows] = np.repeat(extreme.reduceat(values[rows], starts), np.diff(np.append(starts, len(rows))))
    return result
