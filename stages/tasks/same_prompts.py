"""Rows that ask nearly the same at first, as groups: an answer must not be learnt that a test row asks for."""

from hashlib import sha256

import numpy as np
import polars as pl

from stages.common.params.clean import NearDuplicates
from stages.common.text.near_duplicates import deduplicate


def grouped(records: pl.DataFrame, questions: pl.Series, near: NearDuplicates) -> pl.DataFrame:
    """Return records in groups by their first questions, of which equal and, with `near`, nearly equal ones are one.

    A group that they have already stays together too, with all whose questions its rows share. A group is named by its
    first question, so that its name, which decides on the split, is the same in any order of the rows.
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
    own = records["group"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
    nodes = len(distinct) + int(own.max(initial=0)) + 1
    rows = own > 0
    links = coo_array((np.ones(int(rows.sum())), (question[rows], len(distinct) + own[rows])), shape=(nodes, nodes))
    part = connected_components(links, directed=False)[1][question]
    first = (
        pl.DataFrame({"part": part, "question": questions}).select(pl.col("question").min().over("part")).to_series()
    )
    names = {text: f"asks {sha256(text.encode()).hexdigest()[:16]}" for text in first.unique()}
    return records.with_columns(group=first.replace_strict(names, return_dtype=pl.String))
