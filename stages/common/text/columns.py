"""Columns of texts: the whole text of a row, when two are the same, what a word is, changes where they are needed."""

from collections.abc import Callable
from typing import Any

import polars as pl

# Scripts that put no blanks between words.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"

# A letter of a script without spaces is a word of its own; \w+ would take a whole sentence for one. Ranges, because
# Python's `re` knows no \p{Han}: the pattern is the same in polars and in scikit-learn.
_LETTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
WORD = rf"[{_LETTERS}]|[^\W{_LETTERS}]+"


def whole_text(rows: pl.DataFrame) -> pl.Series:
    """Return the text of each row, with the second one of a pair on a line of its own."""
    if rows["text_pair"].null_count() == rows.height:
        return rows["text"]
    return rows.select(pl.concat_str("text", "text_pair", separator="\n", ignore_nulls=True)).to_series()


def same_text_key() -> pl.Expr:
    """Return what is equal for rows with the same text or texts; those that differ in case alone are the same."""
    return pl.concat_str(pl.col("text"), pl.col("text_pair").fill_null(""), separator="\x1f").str.to_lowercase()


def is_unspaced(texts: pl.Series) -> bool:
    """Whether more than a fifth of all characters are of a script without blanks between words."""
    return int(texts.str.count_matches(UNSPACED).sum()) > int(texts.str.len_chars().sum()) / 5


def tfidf(spaced: bool, words: int = 2, **limits: Any) -> Any:
    """Return scikit-learn's vectorizer for words and so many of them in a row, or for up to three characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    of_words = {"ngram_range": (1, words), "token_pattern": r"\w+"}  # one letter is a word, too
    kind = of_words if spaced else {"ngram_range": (1, 3), "analyzer": "char"}
    return TfidfVectorizer(**kind, sublinear_tf=True, **limits)


def change_where(texts: pl.Series, needed: pl.Series, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Return the texts with `change` applied where `needed` (Boolean, same length) is true; null counts as false."""
    index = needed.arg_true()
    return texts if index.is_empty() else texts.clone().scatter(index, change(texts.gather(index)))


def change_each(texts: pl.Series, needed: pl.Series, change: Callable[[str], str]) -> pl.Series:
    """Like `change_where`, for a function of one text."""
    return change_where(texts, needed, lambda some: pl.Series([change(text) for text in some], dtype=pl.String))
