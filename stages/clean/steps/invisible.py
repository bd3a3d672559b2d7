"""Characters that nobody sees and that part words or hide duplicates."""

import polars as pl

from stages.common.selection import change_where

# Soft hyphen, zero-width space, word joiner, byte-order mark. The zero-width (non-)joiner stays: Persian, Indic
# scripts and composed emoji are spelt with it; so do marks of direction, which Arabic and Hebrew need.
INVISIBLE = "[\u00ad\u200b\u2060\ufeff]"


def remove(texts: pl.Series) -> pl.Series:
    """Remove invisible characters."""
    return change_where(texts, texts.str.contains(INVISIBLE), lambda some: some.str.replace_all(INVISIBLE, ""))
