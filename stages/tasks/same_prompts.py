"""Rows that ask nearly the same at first, as groups: an answer must not be learnt that a test row asks for."""

from hashlib import sha256

import numpy as np
import polars as pl

from stages.common.params.clean import NearDuplicates
from stages.common.text.near_duplicates import deduplicate


def grouped(records: pl.DataFrame, questions: pl.Series, near: NearDuplicates) -> pl.DataFrame:
    """Return records with `asks`, the name of what they ask, and groups that hold together those that ask the same.

    Equal and, with `near`, nearly equal questions are one. A group that rows have already stays together too, with all
    whose questions they share. Both are named by the first question, so that the name, which decides on the split, is
    the same in any order of the rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    distinct = questions.unique().sort()
    same = np.arange(len(distinct))
    if near.enabled:
        duplicate_of, _ = deduplicate(distinct, near.threshold, near.shingle_size, near.num_perm)
        same = np.where(duplicate_of < 0, same, duplicate_of)
    place = dict(zip(distinct, same.tolist(), strict=True))
    question = np.array([place[text] for text in questions], np.int64)
    rows = records["group"].is_not_null().to_numpy()
    own = records["group"].rank("dense").drop_nulls().to_numpy().astype(np.int64) + len(distinct)
    nodes = len(distinct) + len(own) + 1
    links = coo_array((np.ones(len(own)), (question[rows], own)), shape=(nodes, nodes))
    joined = connected_components(links, directed=False)[1][question]
    return records.with_columns(asks=_named(question, questions), group=_named(joined, questions))


def _named(parts: np.ndarray, questions: pl.Series) -> pl.Series:
    """Return the name of the part that each row is in, by the first of its questions."""
    table = pl.DataFrame({"part": parts, "question": questions})
    first = table.select(pl.col("question").min().over("part")).to_series()
    names = {text: f"asks {sha256(text.encode()).hexdigest()[:16]}" for text in first.unique()}
    return first.replace_strict(names, return_dtype=pl.String)
