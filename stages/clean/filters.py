"""Rules that keep rows out: each gives the reason why a row goes, null where it stays.

No rule looks at the order of the rows: where one of several rows stays, it is the one of the official split of the
highest priority (test before validation before train, so that an official test set stays whole), then of the smallest
id.
"""

from functools import partial

import numpy as np
import polars as pl

from stages.clean.languages import other_language
from stages.clean.timestamps import unreadable_timestamp
from stages.common.ledger import Rule
from stages.common.params.clean import CleanParams, NearDuplicates
from stages.common.text.columns import same_text_key, whole_text
from stages.common.text.near_duplicates import deduplicate, nearest_among

PRIORITY = pl.col("split").replace_strict({"test": 0, "validation": 1, "train": 2}, default=3, return_dtype=pl.Int8)
CONTRARY = ", which has another label: "
LISTED = 5  # labels named in a reason
BATCH = 100_000  # texts hashed at once
KEY = ("high", "low")  # 128 bits: no two texts share them


def rules(params: CleanParams, against: pl.DataFrame) -> dict[str, Rule]:
    """Return the rules that are on by name, in the order they are applied, for records that have a text.

    Args:
        params: the section `clean`.
        against: texts that no row may equal or nearly equal, cleaned as the records are (schema Decontamination).
    """
    unlabelled = pl.when(pl.col("label").fill_null("") == "").then(pl.lit("there is no label"))
    shortest, longest, characters = params.length.min, params.length.max, pl.col("text").str.len_chars()
    length = pl.when(~characters.is_between(shortest, longest)).then(
        pl.format(f"{{}} characters, outside {shortest} to {longest}", characters)
    )
    near = params.near_duplicates
    in_force: list[tuple[str, Rule, bool]] = [
        ("unlabelled", lambda _: unlabelled, True),
        ("length", lambda _: length, True),
        ("language", partial(other_language, languages=params.languages), bool(params.languages.keep)),
        ("unreadable_timestamp", unreadable_timestamp, params.split.by == "time"),
        ("conflicting_labels", conflicting_labels, True),
        ("exact_duplicate", exact_duplicate, True),
        ("contaminated", partial(contaminated, against=against, near=near), not against.is_empty()),
        ("near_duplicate", partial(near_duplicate, near=near), near.enabled),
    ]
    return {name: rule for name, rule, needed in in_force if needed}


def conflicting_labels(records: pl.DataFrame) -> pl.Series:
    """The same text stands under several labels: nobody knows which is right, so none stays."""
    rows = _keys(records).with_columns(rank=records["label"].rank("dense"))
    several = rows.select(pl.col("rank").min().over(KEY) != pl.col("rank").max().over(KEY)).to_series().arg_true()
    some = pl.col("label").str.head(40).unique().sort()
    more = pl.when(pl.col("label").n_unique() > LISTED).then(pl.lit(", …")).otherwise(pl.lit(""))
    labels = (some.head(LISTED).str.join(", ") + more).over(KEY)
    rows = rows[several].with_columns(records["label"].gather(several))
    return _reasons(records, several, rows.select(pl.format("the same text has the labels {}", labels)))


def exact_duplicate(records: pl.DataFrame) -> pl.Series:
    """The same text (without regard to case) as another row; one of them stays."""
    order = _precedence(records)
    rank = order.arg_sort()
    first = _keys(records).with_columns(rank=rank).select(pl.col("rank").min().over(KEY)).to_series()
    out = (first != rank).arg_true()
    stays = records["id"].gather(order.gather(first.gather(out)))
    return _reasons(records, out, pl.select(pl.format("the same text as {}", stays)))


def contaminated(records: pl.DataFrame, against: pl.DataFrame, near: NearDuplicates) -> pl.Series:
    """The text equals (without regard to case) or nearly equals one of a benchmark or test set of the user's own.

    Args:
        records: clean rows; the two texts of a pair count as one text, one line after the other.
        against: schema Decontamination, the texts cleaned by the same steps as the records.
        near: what nearly equal means; not enabled: equal texts alone.
    """
    listed = against.group_by(pl.col("text").str.to_lowercase()).agg(pl.col("source").min())
    listed = listed.sort("text")  # so that neither match nor reason depends on the order of the rows
    texts = whole_text(records)
    keys = texts.str.replace_all("\n", " ", literal=True).str.to_lowercase().to_frame("text")
    same = keys.join(listed, on="text", how="left", maintain_order="left")
    reasons = same.select(pl.format("the same text as one of {}", "source")).to_series()
    if near.enabled:
        others = reasons.is_null().arg_true()
        position, similarity = nearest_among(
            texts.gather(others), listed["text"], near.threshold, near.shingle_size, near.num_perm
        )
        source = listed["source"].gather(position[position >= 0])
        found = pl.format("nearly the same text as one of {} (similarity {})", source, _text(similarity[position >= 0]))
        reasons = reasons.scatter(others.filter(pl.Series(position >= 0)), pl.select(found).to_series())
    return reasons


def near_duplicate(records: pl.DataFrame, near: NearDuplicates) -> pl.Series:
    """Nearly the same text as a row that stays, so that no two kept rows nearly equal each other."""
    order = _precedence(records)
    twin, similarity = deduplicate(whole_text(records).gather(order), near.threshold, near.shingle_size, near.num_perm)
    out = order.filter(pl.Series(twin >= 0, dtype=pl.Boolean))
    stays = records.select("id", "label")[order.gather(twin[twin >= 0])]
    reason = pl.format("near-duplicate of {} (similarity {})", "id", _text(similarity[twin >= 0]))
    other = pl.when(pl.col("label") != records["label"].gather(out)).then(pl.lit(CONTRARY) + pl.col("label"))
    return _reasons(records, out, stays.select(reason + other.fill_null("")))


def _precedence(records: pl.DataFrame) -> pl.Series:
    """Return the positions of the rows in the order in which they stay when one of several has to go."""
    return records.select(pl.arg_sort_by(PRIORITY, "id")).to_series()


def _keys(records: pl.DataFrame) -> pl.DataFrame:
    """Return two hashes of each row's text, in which case plays no part; in batches, as the keys are texts as well."""
    hashes = [same_text_key().hash(seed).alias(name) for seed, name in enumerate(KEY)]
    return pl.concat([part.select(hashes) for part in (records.clear(), *records.iter_slices(BATCH))])


def _text(similarity: np.ndarray) -> pl.Series:
    return pl.Series(similarity, dtype=pl.Float64).round(2).cast(pl.String)


def _reasons(records: pl.DataFrame, at: pl.Series, reasons: pl.DataFrame) -> pl.Series:
    """Return the reasons at these positions, null at all others."""
    stays = pl.Series([None], dtype=pl.String).new_from_index(0, records.height)
    return stays.scatter(at, reasons.to_series())
