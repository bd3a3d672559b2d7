"""Slow functions see only the texts that need them; the others are passed on as they are."""

from collections.abc import Callable

import polars as pl


def change_where(texts: pl.Series, needed: pl.Series, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Return the texts with `change` applied where `needed` (Boolean, same length) is true; null counts as false."""
    at = needed.arg_true()
    return texts if at.is_empty() else texts.clone().scatter(at, change(texts.gather(at)))


def change_each(texts: pl.Series, needed: pl.Series, change: Callable[[str], str]) -> pl.Series:
    """Like `change_where`, for a function of one text."""
    return change_where(texts, needed, lambda some: pl.Series([change(text) for text in some], dtype=pl.String))
