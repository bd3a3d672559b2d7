"""The single repairs of `stages.common.text.cleaning`: columns of texts in, columns out, null where nothing is left."""

import html
import re
from functools import cache
from typing import Any, Literal

import polars as pl

from stages.common.text.columns import change_each, change_where

ENTITY = "&[#A-Za-z]"
# `&amp;amp;amp;` in one go: a text of nothing else would take a pass for every level.
AMPERSANDS = re.compile(r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+")
LONG_NUMBER = re.compile(r"&#0*([0-9]{0,8})[0-9]*;?")  # Python refuses to read integers of thousands of digits
SINGLE_QUOTES, DOUBLE_QUOTES = "[\u02bc\u2018-\u201b]", "[\u201c-\u201f]"
QUOTES = "[\u02bc\u2018-\u201f]"
# Soft hyphen, zero-width space, word joiner, byte-order mark. The zero-width (non-)joiner stays: Persian, Indic
# scripts and composed emoji are spelt with it; so do marks of direction, which Arabic and Hebrew need.
INVISIBLE = "[\u00ad\u200b\u2060\ufeff]"
# One after the other, not as one alternation: that would look for the end of each of a thousand open `<script>`s again.
MARKUP = (
    r"(?s)<!--.*?-->",
    r"(?is)<script(?:\s[^<>]*)?>.*?</script\s*>",
    r"(?is)<style(?:\s[^<>]*)?>.*?</style\s*>",
    r"(?i)<!doctype[^<>]*>",
    # A name, then blanks or the end: `<3`, `a < b`, `<ann@example.org>` and `<https://example.org>` are no tags.
    r"</?[A-Za-z][A-Za-z0-9:_.-]*(?:\s[^<>]*)?/?>",
)
HAN = r"\p{Han}"
# Japanese and Korean write Han characters of their own: a text with kana or hangul is left as it is. A Japanese text
# of Han characters alone looks like Chinese.
OTHER_SCRIPTS = r"[\p{Hiragana}\p{Katakana}\p{Hangul}]"
UNEVEN = r"[\s&&[^ ]]|  |^ | $|^$"


def resolve_entities(texts: pl.Series) -> pl.Series:
    """Resolve named and numeric entities (`&eacute;`, `&#233;`, `&#xE9;`), and those that were escaped as text."""
    return change_each(texts, texts.str.contains(ENTITY), unescape)


def unescape(text: str) -> str:
    """Resolve the entities of one text, however often they were escaped."""
    text = AMPERSANDS.sub("&", text)
    if "&#" in text:
        text = LONG_NUMBER.sub(lambda found: f"&#{found[1] or 0};" if found[0][2:3].isdigit() else found[0], text)
    return html.unescape(text)


def repair(texts: pl.Series) -> pl.Series:
    """Return what `ftfy.fix_text` makes of each text, entities, full-width characters and Unicode form left alone.

    Broken encodings (`schÃ¶n`), curly quotes, ligatures, line ends, control characters. ftfy takes 25 µs a text, and
    hardly any text needs it: what it looks for is searched here first, in all texts at once.
    """
    import ftfy

    config = ftfy.TextFixerConfig(unescape_html=False, fix_character_width=False, normalization=None, explain=False)
    broken = texts.str.contains(_suspicious())
    curly = ~broken & texts.str.contains(QUOTES)  # most of what is left to do: not worth a call for each text
    texts = change_where(texts, curly, _uncurl)
    return change_each(texts, broken, lambda text: ftfy.fix_text(text, config))


def _uncurl(texts: pl.Series) -> pl.Series:
    return texts.str.replace_all(SINGLE_QUOTES, "'").str.replace_all(DOUBLE_QUOTES, '"')


@cache
def odd_characters() -> str:
    """Return a pattern for single characters that ftfy changes, apart from quotes; for Python's `re` and for Rust's."""
    from ftfy import chardata

    listed = {*chardata.CONTROL_CHARS, *chardata.LIGATURES, *map(ord, "\r\x1b\x85\u2028\u2029")}
    return "[" + "".join(f"\\U{code:08x}" for code in sorted(listed)) + "]"


@cache
def _suspicious() -> str:
    """Return a pattern for Rust's regex that finds at least the texts in which ftfy changes more than quotes."""
    from ftfy import badness

    # Python's verbose syntax: comments and blanks outside brackets mean nothing. `^` is the start of a line to ftfy,
    # and its \w and \s hold a few more characters than Rust's: the wider pattern only asks ftfy once more.
    tokens = re.findall(r"#.*|\[[^\]]*\]|\\.|\s|[^\s]", badness.BADNESS_RE.pattern)
    wider = {"^": "", r"\w": r"[\w\p{N}]", r"\s": r"[\s\x1c-\x1f]"}
    mojibake = "".join(wider.get(token, token) for token in tokens if not token.startswith("#") and token.strip())
    return f"{odd_characters()}|{mojibake}"


def remove_invisible(texts: pl.Series) -> pl.Series:
    """Remove characters that nobody sees and that part words or hide duplicates."""
    return change_where(texts, texts.str.contains(INVISIBLE), lambda some: some.str.replace_all(INVISIBLE, ""))


def strip_tags(texts: pl.Series) -> pl.Series:
    """Replace each HTML tag by a blank, so that no two words grow together."""

    def strip(some: pl.Series) -> pl.Series:
        for pattern in MARKUP:
            some = some.str.replace_all(pattern, " ")
        return some

    return change_where(texts, texts.str.contains("<[A-Za-z/!]"), strip)


def simplify(texts: pl.Series) -> pl.Series:
    """Convert Chinese texts to simplified characters; others stay as they are."""
    chinese = texts.str.contains(HAN) & ~texts.str.contains(OTHER_SCRIPTS)
    return change_each(texts, chinese, lambda text: str(_opencc().convert(text)))


@cache
def _opencc() -> Any:
    import opencc

    return opencc.OpenCC("t2s")


def normalise(texts: pl.Series, form: Literal["NFC", "NFKC"]) -> pl.Series:
    """Bring texts into a Unicode form: one way to write each character (https://unicode.org/reports/tr15/)."""
    beyond_ascii = texts.str.len_bytes() != texts.str.len_chars()
    return change_where(texts, beyond_ascii, lambda some: some.str.normalize(form))


def collapse(texts: pl.Series) -> pl.Series:
    """Make each run of white space (Unicode's, line ends among it) one blank; a text without anything else is null."""

    def even(some: pl.Series) -> pl.Series:
        joined = some.str.replace_all(r"\s+", " ").str.strip_chars(" ")
        return joined.set(joined == "", None)

    return change_where(texts, texts.str.contains(UNEVEN), even)
