"""Unicode form: one way to write each character (https://unicode.org/reports/tr15/)."""

from typing import Literal

import polars as pl

from stages.common.selection import change_where


def to_form(texts: pl.Series, form: Literal["NFC", "NFKC"]) -> pl.Series:
    """Bring texts into the form; NFKC also folds full-width letters, circled digits, ligatures and the like."""
    beyond_ascii = texts.str.len_bytes() != texts.str.len_chars()
    return change_where(texts, beyond_ascii, lambda some: some.str.normalize(form))
