"""The single repairs of `stages.common.text.cleaning`: columns of texts in, columns out, null where nothing is left."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from stages.common.text.columns import change_each, change_where

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

LONG_NUMBER = re.compile(r"&#0*([0-9]{0,8})[0-9]*;?")  # Python refuses to read integers of thousands of digits
# Soft hyphen, zero-width space, word joiner, byte-order mark. The zero-width (non-)joiner stays: Persian, Indic
# scripts and composed emoji are spelt with it; so do marks of direction, which Arabic and Hebrew need.
INVISIBLE = "[\u00ad\u200b\u2060\ufeff]"
# One after the other, not as one alternation: that would look for the end of each of a thousand open `<script>`s again.
TAGS = (
    r"(?s)<!--.*?-->",
    r"(?is)<script(?:\s[^<>]*)?>.*?</script\s*>",
    r"(?is)<style(?:\s[^<>]*)?>.*?</style\s*>",
    r"(?i)<!doctype[^<>]*>",
    # A name, then blanks or the end: `<3`, `a < b`, `<ann@example.org>` and `<https://example.org>` are no tags.
    r"</?[A-Za-z][A-Za-z0-9:_.-]*(?:\s[^<>]*)?/?>",
)
INLINE_MARKDOWN = r"[*_`~\\]|\][(:\[]|<[^<>\s]+>"
BLOCK_MARKDOWN = r"\n[ \t>]*(?:[#>|+=:-]|[0-9]+[.)])|^[ \t]*(?:[#>|+-]|[0-9]+[.)])[^\n]*\n"


def resolve_entities(texts: pl.Series) -> pl.Series:
    """Resolve named and numeric entities (`&eacute;`, `&#233;`, `&#xE9;`), one level of escaping."""
    return change_each(texts, texts.str.contains("&[#A-Za-z]"), unescape)


def unescape(text: str) -> str:
    """Return a text with its entities resolved, however long their numbers are."""
    if "&#" in text:
        text = LONG_NUMBER.sub(lambda match: f"&#{match[1] or 0};" if match[0][2:3].isdigit() else match[0], text)
    return html.unescape(text)


def repair_encoding(texts: pl.Series) -> pl.Series:
    """Return what `ftfy.fix_text` makes of each text, entities, full-width characters and Unicode form left alone.

    Broken encodings (`schÃ¶n`), curly quotes, ligatures, line ends, control characters. ftfy takes 25 µs a text, and
    hardly any text needs it: what it looks for is searched here first, in all texts at once.
    """
    import ftfy

    def uncurl(some: pl.Series) -> pl.Series:
        return some.str.replace_all("[\u02bc\u2018-\u201b]", "'").str.replace_all("[\u201c-\u201f]", '"')

    config = ftfy.TextFixerConfig(unescape_html=False, fix_character_width=False, normalization=None, explain=False)
    broken = texts.str.contains(_mojibake())
    curly = ~broken & texts.str.contains("[\u02bc\u2018-\u201f]")  # most of what is left: no call for each text
    return change_each(change_where(texts, curly, uncurl), broken, lambda text: ftfy.fix_text(text, config))


@cache
def odd_characters() -> str:
    """Return a pattern for single characters that ftfy changes, apart from quotes; for Python's `re` and for Rust's."""
    from ftfy import chardata

    codes = {*chardata.CONTROL_CHARS, *chardata.LIGATURES, *map(ord, "\r\x1b\x85\u2028\u2029")}
    return "[" + "".join(f"\\U{code:08x}" for code in sorted(codes)) + "]"


@cache
def _mojibake() -> str:
    """Return a pattern for Rust's regex that finds at least the texts in which ftfy changes more than quotes."""
    from ftfy import badness

    # Python's verbose syntax: comments and blanks outside brackets mean nothing. `^` is the start of a line to ftfy,
    # and its \w and \s hold a few more characters than Rust's: the wider pattern only asks ftfy once more.
    tokens = re.findall(r"#.*|\[[^\]]*\]|\\.|\s|[^\s]", badness.BADNESS_RE.pattern)
    wider = {"^": "", r"\w": r"[\w\p{N}]", r"\s": r"[\s\x1c-\x1f]"}
    pattern = "".join(wider.get(token, token) for token in tokens if not token.startswith("#") and token.strip())
    return f"{odd_characters()}|{pattern}"


def remove_invisible(texts: pl.Series) -> pl.Series:
    """Remove characters that nobody sees and that part words or hide duplicates."""
    return change_where(texts, texts.str.contains(INVISIBLE), lambda some: some.str.replace_all(INVISIBLE, ""))


def strip_markdown(texts: pl.Series) -> pl.Series:
    """Remove the marks of Markdown; links become their text, images their description.

    CommonMark with tables and strikethrough (markdown-it-py), and three doubts decided for the text as it stands:
    `2*3*4` and `f**k` hold no emphasis, since asterisks inside words are not marks; a text of one line has no headings,
    lists or quotes, since `# 1 movie!` and `- never again` are ordinary lines; numbers of lists stay, since `1986.` may
    be a year.
    """
    return change_each(texts, texts.str.contains(f"{INLINE_MARKDOWN}|{BLOCK_MARKDOWN}"), plain_text)


def plain_text(markdown: str) -> str:
    """Return one text without the marks of Markdown."""
    markdown = markdown.strip()
    parser = _markdown_parser()
    tokens = parser.parse(markdown) if "\n" in markdown else parser.parseInline(markdown)
    return "\n".join(_token_text(token) for token in tokens)


@cache
def _markdown_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline.state_inline import Delimiter

    def emphasis(state: StateInline, silent: bool) -> bool:
        """Take * for a mark only where _ would be one, at the edge of a word (as markdown_it.rules_inline.emphasis)."""
        marker = state.src[state.pos]
        if silent or marker not in "_*":
            return False
        run = state.scanDelims(state.pos, canSplitWord=False)
        for _ in range(run.length):
            state.push("text", "", 0).content = marker
            last = len(state.tokens) - 1
            state.delimiters.append(Delimiter(ord(marker), run.length, last, -1, run.can_open, run.can_close))
        state.pos += run.length
        return True

    # HTML and entities belong to other steps, and go through as text.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("entity")
    parser.inline.ruler.at("emphasis", emphasis)
    return parser


def _token_text(token: Token) -> str:
    if token.type in ("inline", "image"):
        return "".join(map(_token_text, token.children or ()))
    if token.type == "list_item_open":
        return f"{token.info}{token.markup}" if token.info else ""
    return "\n" if token.type in ("softbreak", "hardbreak") else token.content  # code has its text, other blocks none


def strip_tags(texts: pl.Series) -> pl.Series:
    """Replace each HTML tag by a blank, so that no two words grow together."""

    def strip(some: pl.Series) -> pl.Series:
        for pattern in TAGS:
            some = some.str.replace_all(pattern, " ")
        return some

    return change_where(texts, texts.str.contains("<[A-Za-z/!]"), strip)


def simplify_chinese(texts: pl.Series) -> pl.Series:
    """Convert Chinese texts to simplified characters; others stay as they are.

    Japanese and Korean write Han characters of their own: a text with kana or hangul is left as it is. A Japanese text
    of Han characters alone looks like Chinese.
    """
    chinese = texts.str.contains(r"\p{Han}") & ~texts.str.contains(r"[\p{Hiragana}\p{Katakana}\p{Hangul}]")
    return change_each(texts, chinese, lambda text: str(_opencc().convert(text)))


@cache
def _opencc() -> Any:
    import opencc

    return opencc.OpenCC("t2s")


def normalise(texts: pl.Series, form: Literal["NFC", "NFKC"]) -> pl.Series:
    """Bring texts into a Unicode form: one way to write each character (https://unicode.org/reports/tr15/)."""
    beyond_ascii = texts.str.len_bytes() != texts.str.len_chars()
    return change_where(texts, beyond_ascii, lambda some: some.str.normalize(form))


def collapse_whitespace(texts: pl.Series) -> pl.Series:
    """Make each run of white space (Unicode's, line ends among it) one blank; a text without anything else is null."""

    def collapse(some: pl.Series) -> pl.Series:
        joined = some.str.replace_all(r"\s+", " ").str.strip_chars(" ")
        return joined.set(joined == "", None)

    return change_where(texts, texts.str.contains(r"[\s&&[^ ]]|  |^ | $|^$"), collapse)
