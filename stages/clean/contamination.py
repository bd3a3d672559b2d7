"""Rows that stand in a benchmark or test set of the user's own: to train on them would make its scores a lie."""

import polars as pl

from stages.clean.reject import Parted
from stages.common.near_duplicates import nearest_among
from stages.common.params.clean import NearDuplicates
from stages.common.texts import whole_text


def contaminated(records: pl.DataFrame, against: pl.DataFrame, near: NearDuplicates) -> Parted:
    """Part off rows whose text equals (without regard to case) or nearly equals one of the texts.

    Args:
        records: clean rows; the two texts of a pair count as one text, one line after the other.
        against: schema Decontamination, the texts cleaned by the same steps as the records.
        near: what nearly equal means; not enabled: equal texts alone.
    """
    listed = against.drop_nulls("text").group_by(pl.col("text").str.to_lowercase()).agg(pl.col("source").min())
    listed = listed.sort("text")  # so that neither match nor reason depends on the order of the rows
    texts = whole_text(records)
    keys = pl.DataFrame({"text": texts.str.replace_all("\n", " ", literal=True).str.to_lowercase()})
    rows = keys.with_row_index("at").join(listed, on="text", how="left", maintain_order="left").drop("text")
    nearest = _nearest(texts, rows["source"].is_null(), listed, near)
    rows = rows.join(nearest, on="at", how="left", maintain_order="left")
    reason = pl.coalesce(
        pl.format("the same text as one of {}", "source"),
        pl.format("nearly the same text as one of {} (similarity {})", "near", pl.col("similarity").cast(pl.String)),
    )
    reasons = rows.select(reason=reason).to_series()
    found = reasons.is_not_null()
    return records.filter(~found), records.with_columns(reason=reasons).filter(found)


def _nearest(texts: pl.Series, asked: pl.Series, listed: pl.DataFrame, near: NearDuplicates) -> pl.DataFrame:
    """Return `at` (position of the text), `near` (source of the listed text) and `similarity` of those that match."""
    at = (asked & texts.is_not_null()).arg_true() if near.enabled else pl.Series(dtype=pl.UInt32)
    position, similarity = nearest_among(
        texts.gather(at), listed["text"], near.threshold, near.shingle_size, near.num_perm
    )
    match = position >= 0
    return pl.DataFrame(
        {
            "at": at.filter(pl.Series(match, dtype=pl.Boolean)),
            "near": listed["source"].gather(position[match]),
            "similarity": similarity[match].round(2),
        }
    )
