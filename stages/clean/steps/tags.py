"""HTML without its tags, comments, scripts and styles."""

import polars as pl

from stages.common.selection import change_where

# One after the other, not as one alternation: that would look for the end of each of a thousand open `<script>`s anew.
MARKUP = (
    r"(?s)<!--.*?-->",
    r"(?is)<script(?:\s[^<>]*)?>.*?</script\s*>",
    r"(?is)<style(?:\s[^<>]*)?>.*?</style\s*>",
    r"(?i)<!doctype[^<>]*>",
    # A name, then blanks or the end: `<3`, `a < b`, `<ann@example.org>` and `<https://example.org>` are no tags.
    r"</?[A-Za-z][A-Za-z0-9:_.-]*(?:\s[^<>]*)?/?>",
)


def strip(texts: pl.Series) -> pl.Series:
    """Replace each tag by a blank, so that no two words grow together."""
    return change_where(texts, texts.str.contains("<[A-Za-z/!]"), _strip)


def _strip(texts: pl.Series) -> pl.Series:
    for pattern in MARKUP:
        texts = texts.str.replace_all(pattern, " ")
    return texts
