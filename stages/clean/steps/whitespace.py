"""One blank between words, none at the ends, and null where there is nothing else."""

import polars as pl

from stages.common.selection import change_where

UNEVEN = r"[\s&&[^ ]]|  |^ | $|^$"


def collapse(texts: pl.Series) -> pl.Series:
    """Make each run of white space (Unicode's, line ends among it) one blank; a text without anything else is null."""
    return change_where(texts, texts.str.contains(UNEVEN), _collapse)


def _collapse(texts: pl.Series) -> pl.Series:
    even = texts.str.replace_all(r"\s+", " ").str.strip_chars(" ")
    return even.set(even == "", None)
