"""Traditional Chinese becomes simplified Chinese, through OpenCC (its table `t2s`: characters and phrases)."""

from functools import cache
from typing import Any

import polars as pl

from stages.common.selection import change_each

HAN = r"\p{Han}"
# Japanese and Korean write Han characters of their own: a text with kana or hangul is left as it is. A Japanese text
# of Han characters alone cannot be told from Chinese.
OTHER_SCRIPTS = r"[\p{Hiragana}\p{Katakana}\p{Hangul}]"


def simplify(texts: pl.Series) -> pl.Series:
    """Convert Chinese texts; others stay as they are."""
    return change_each(texts, texts.str.contains(HAN) & ~texts.str.contains(OTHER_SCRIPTS), _convert)


def _convert(text: str) -> str:
    return str(_converter().convert(text))


@cache
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("t2s")
