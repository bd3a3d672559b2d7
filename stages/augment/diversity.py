"""How much new there is in new rows: hardly any, and they only repeat; too much, and they are no longer true."""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from statistics import fmean

import polars as pl

from stages.augment.words import split
from stages.common.near_duplicates import jaccard, shingles


def method_report(made: pl.DataFrame, kept: pl.DataFrame, train: pl.DataFrame, size: int) -> dict[str, object]:
    """Say of one method's rows how far they are from their parents, and how rich in words.

    Args:
        made: all rows of the method, with `text` and `parent`.
        kept: those of them that passed the guards.
        train: the training rows, which the parents are among.
        size: characters in a shingle.

    Returns:
        distinct_texts: distinct texts as a share of those made.
        similarity_to_parent: mean Jaccard similarity of character shingles.
        length_ratio: mean length in characters over that of the parent.
        distinct_1, distinct_2: distinct words and word pairs as a share of all (Li et al. 2016); and the same of the
            parents, which are as many, for the share falls with the number of texts.
        All but the first are of the rows that were kept, None if there are none.
    """
    distinct = {"distinct_texts": _rounded(made["text"].n_unique() / made.height)}
    if kept.is_empty():
        names = ("similarity_to_parent", "length_ratio", "distinct_1", "distinct_2")
        return distinct | dict.fromkeys((*names, "distinct_1_of_parents", "distinct_2_of_parents"))
    pairs = kept.join(
        train.select("id", parent_text="text"), left_on="parent", right_on="id", maintain_order="left"
    ).select("text", "parent_text")
    similar = fmean(jaccard(shingles(new, size), shingles(old, size)) for new, old in pairs.iter_rows())
    ratio = fmean(len(new) / len(old) for new, old in pairs.iter_rows())
    of_kept, of_parents = distinct_n(pairs["text"]), distinct_n(pairs["parent_text"])
    return distinct | {
        "similarity_to_parent": _rounded(similar),
        "length_ratio": _rounded(ratio),
        "distinct_1": of_kept[0],
        "distinct_2": of_kept[1],
        "distinct_1_of_parents": of_parents[0],
        "distinct_2_of_parents": of_parents[1],
    }


def distinct_n(texts: Iterable[str]) -> tuple[float | None, float | None]:
    """Return distinct-1 and distinct-2 of texts: distinct words, and pairs of words, over all of them."""
    words = [split(text)[0] for text in texts]
    return _distinct(chain.from_iterable(words)), _distinct(chain.from_iterable(map(pairwise, words)))


def _distinct(things: Iterator[object]) -> float | None:
    seen, count = set(), 0
    for thing in things:
        seen.add(thing)
        count += 1
    return _rounded(len(seen) / count) if count else None


def _rounded(value: float) -> float:
    return round(value, 4)
