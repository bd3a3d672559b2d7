"""HTML entities become the characters that they stand for, however often they were escaped."""

import html
import re

import polars as pl

from stages.common.selection import change_each

ENTITY = "&[#A-Za-z]"
# `&amp;amp;amp;` in one go: a text of nothing else would take a pass for every level.
AMPERSANDS = re.compile(r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+")
LONG_NUMBER = re.compile(r"&#0*([0-9]{0,8})[0-9]*;?")  # Python refuses to read integers of thousands of digits


def resolve(texts: pl.Series) -> pl.Series:
    """Resolve named and numeric entities (`&eacute;`, `&#233;`, `&#xE9;`), and those that were escaped as text."""
    return change_each(texts, texts.str.contains(ENTITY), unescape)


def unescape(text: str) -> str:
    """Resolve the entities of one text."""
    text = AMPERSANDS.sub("&", text)
    if "&#" in text:
        text = LONG_NUMBER.sub(lambda found: f"&#{found[1] or 0};" if found[0][2:3].isdigit() else found[0], text)
    return html.unescape(text)
