"""Rows that ask nearly the same at first, as groups: an answer must not be learnt that a test row asks for."""

from hashlib import sha256

import numpy as np
import polars as pl

from stages.common.params.clean import NearDuplicates
from stages.common.text.near_duplicates import deduplicate


def grouped(records: pl.DataFrame, questions: pl.Series, near: NearDuplicates) -> pl.DataFrame:
    """Return records in groups by their first questions, of which equal and, with `near`, nearly equal ones are one.

    Rows of one group, or of one text, stay together too, with all whose questions they share. A group is named by its
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
    links, nodes = [], len(distinct)
    for column in (records["group"], records["text"].str.to_lowercase()):  # cleaned, so that more are equal
        rows = column.is_not_null().to_numpy()
        links.append((question[rows], column.rank("dense").drop_nulls().to_numpy().astype(np.int64) + nodes))
        nodes += len(column) + 1
    pairs = np.hstack(links)
    graph = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(nodes, nodes))
    part = connected_components(graph, directed=False)[1][question]
    first = (
        pl.DataFrame({"part": part, "question": questions}).select(pl.col("question").min().over("part")).to_series()
    )
    names = {text: f"asks {sha256(text.encode()).hexdigest()[:16]}" for text in first.unique()}
    return records.with_columns(group=first.replace_strict(names, return_dtype=pl.String))
