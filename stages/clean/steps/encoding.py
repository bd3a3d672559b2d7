"""Broken encodings (`schÃ¶n`), curly quotes, ligatures, line ends and control characters, through ftfy.

ftfy takes 25 µs a text, and hardly any text needs it. What it looks for is a list of characters and one regular
expression (ftfy.badness), and both are searched here first, in all texts at once. The result is ftfy's own, always.
"""

import re
from functools import cache

import polars as pl

from stages.common.selection import change_each, change_where

SINGLE_QUOTES = "[\u02bc\u2018-\u201b]"
DOUBLE_QUOTES = "[\u201c-\u201f]"
QUOTES = "[\u02bc\u2018-\u201f]"


def repair(texts: pl.Series) -> pl.Series:
    """Return what `ftfy.fix_text` makes of each text, entities, full-width characters and Unicode form left alone."""
    import ftfy

    config = ftfy.TextFixerConfig(unescape_html=False, fix_character_width=False, normalization=None, explain=False)
    broken = texts.str.contains(_suspicious())
    curly = ~broken & texts.str.contains(QUOTES)  # most of what is left to do: not worth a call for each text
    texts = change_where(texts, curly, _uncurl)
    return change_each(texts, broken, lambda text: ftfy.fix_text(text, config))


def _uncurl(texts: pl.Series) -> pl.Series:
    return texts.str.replace_all(SINGLE_QUOTES, "'").str.replace_all(DOUBLE_QUOTES, '"')


@cache
def _suspicious() -> str:
    """Return a pattern for Rust's regex that finds at least the texts in which ftfy changes more than quotes."""
    from ftfy import badness, chardata

    listed = {*chardata.CONTROL_CHARS, *chardata.LIGATURES, *map(ord, "\r\x1b\x85\u2028\u2029")}
    characters = "".join(rf"\x{{{code:x}}}" for code in sorted(listed))
    # Python's verbose syntax: comments and blanks outside brackets mean nothing. `^` is the start of a line to ftfy,
    # and its \w and \s hold a few more characters than Rust's: the wider pattern only asks ftfy once more.
    tokens = re.findall(r"#.*|\[[^\]]*\]|\\.|\s|[^\s]", badness.BADNESS_RE.pattern)
    wider = {"^": "", r"\w": r"[\w\p{N}]", r"\s": r"[\s\x1c-\x1f]"}
    mojibake = "".join(wider.get(token, token) for token in tokens if not token.startswith("#") and token.strip())
    return f"[{characters}]|{mojibake}"
