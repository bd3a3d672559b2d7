"""Rules that keep rows out. Each parts records into (kept, rejected), the rejected ones with a `reason`.

No rule looks at the order of the rows: where one of several rows stays, it is the one of the weightiest official
split (test before validation before train, so that an official test set stays whole), then of the smallest id.
"""

from collections.abc import Callable

import polars as pl

from stages.common.near_duplicates import thin_out
from stages.common.params import CleanParams

Parted = tuple[pl.DataFrame, pl.DataFrame]
Rule = Callable[[pl.DataFrame], Parted]

SPLIT_WEIGHT = pl.col("split").replace_strict({"test": 0, "validation": 1, "train": 2}, default=3, return_dtype=pl.Int8)


def rules(params: CleanParams) -> list[Rule]:
    """Return the rules in the order they are applied."""

    def length(records: pl.DataFrame) -> Parted:
        return out_of_length(records, params.length.min, params.length.max)

    def near_duplicate(records: pl.DataFrame) -> Parted:
        near = params.near_duplicates
        return near_duplicates(records, near.threshold, near.shingle_size, near.num_perm)

    chosen: list[Rule] = [empty_text, unlabelled, length, conflicting_labels, exact_duplicate]
    return [*chosen, near_duplicate] if params.near_duplicates.enabled else chosen


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
    labels = pl.col("label").unique().sort().over(_key(), mapping_strategy="join")
    marked = records.with_columns(_labels=labels)
    reason = pl.format("the same text has the labels {}", pl.col("_labels").list.join(", "))
    kept, out = _part(marked, pl.col("_labels").list.len() > 1, reason)
    return kept.drop("_labels"), out.drop("_labels")


def exact_duplicate(records: pl.DataFrame) -> Parted:
    """The same text (without regard to case) as another row; one of them stays."""
    ordered = records.with_columns(_weight=SPLIT_WEIGHT).sort("_weight", "id").drop("_weight")
    first = pl.col("id").first().over(_key())
    kept, out = _part(ordered, pl.col("id") != first, pl.format("the same text as {}", first))
    return _as_in(records, kept), out


def near_duplicates(records: pl.DataFrame, threshold: float, shingle_size: int, num_perm: int) -> Parted:
    """Nearly the same text as a row that stays, so that no two kept rows nearly equal each other."""
    ordered = records.with_columns(_weight=SPLIT_WEIGHT).sort("_weight", "id").drop("_weight")
    texts = _full_text(ordered)
    ids = ordered["id"].to_list()
    twins = thin_out(texts, threshold, shingle_size, num_perm)
    reasons = [twin and f"near-duplicate of {ids[twin[0]]} (similarity {twin[1]:.2f})" for twin in twins]
    marked = ordered.with_columns(reason=pl.Series(reasons, dtype=pl.String))
    kept = marked.filter(pl.col("reason").is_null()).drop("reason")
    return _as_in(records, kept), marked.filter(pl.col("reason").is_not_null())


def _part(records: pl.DataFrame, out: pl.Expr, reason: pl.Expr) -> Parted:
    # The reason is made before the rows are parted: it may speak of a row that stays.
    marked = records.with_columns(_out=out.fill_null(False), reason=reason)
    return marked.filter(~pl.col("_out")).drop("_out", "reason"), marked.filter("_out").drop("_out")


def _key() -> pl.Expr:
    """Texts that differ in case alone are the same text."""
    return pl.concat_str(pl.col("text"), pl.col("text_pair").fill_null(""), separator="\x1f").str.to_lowercase()


def _full_text(records: pl.DataFrame) -> list[str]:
    return (
        records.select(pl.concat_str(pl.col("text"), pl.col("text_pair"), separator="\n", ignore_nulls=True))
        .to_series()
        .to_list()
    )


def _as_in(records: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Return the kept rows in the order of the records."""
    return records.join(kept.select("id"), on="id", how="semi", maintain_order="left")
