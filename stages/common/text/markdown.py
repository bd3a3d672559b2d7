"""Markdown without its marks: what a reader of the rendered page would read.

CommonMark with tables and strikethrough (markdown-it-py), and three doubts decided for the text as it stands:
`2*3*4` and `f**k` hold no emphasis, since asterisks inside words are not marks; a text of one line has no headings,
lists or quotes, since `# 1 movie!` and `- never again` are ordinary lines; numbers of lists stay, since `1986.` may be
a year.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from stages.common.text.columns import change_each

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

INLINE = r"[*_`~\\]|\][(:\[]|<[^<>\s]+>"
BLOCK = r"\n[ \t>]*(?:[#>|+=:-]|[0-9]+[.)])|^[ \t]*(?:[#>|+-]|[0-9]+[.)])[^\n]*\n"


def strip(texts: pl.Series) -> pl.Series:
    """Remove the marks of Markdown; links become their text, images their description."""
    return change_each(texts, texts.str.contains(f"{INLINE}|{BLOCK}"), plain)


def plain(text: str) -> str:
    """Return one text without marks."""
    text = text.strip()
    tokens = _parser().parse(text) if "\n" in text else _parser().parseInline(text)
    return "\n".join(_block(token) for token in tokens)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # HTML and entities belong to other steps, and go through as text.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("entity")
    parser.inline.ruler.at("emphasis", _emphasis)
    return parser


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Take * for a mark only where _ would be one: at the edge of a word (after markdown_it.rules_inline.emphasis)."""
    from markdown_it.rules_inline.state_inline import Delimiter

    marker = state.src[state.pos]
    if silent or marker not in "_*":
        return False
    run = state.scanDelims(state.pos, canSplitWord=False)
    for _ in range(run.length):
        state.push("text", "", 0).content = marker
        at = len(state.tokens) - 1
        state.delimiters.append(Delimiter(ord(marker), run.length, at, -1, run.can_open, run.can_close))
    state.pos += run.length
    return True


def _block(token: Token) -> str:
    if token.type == "inline":
        return "".join(_inline(child) for child in token.children or ())
    if token.type == "list_item_open":
        return f"{token.info}{token.markup}" if token.info else ""
    return token.content  # code keeps its text; all other blocks have none


def _inline(token: Token) -> str:
    if token.type == "image":
        return "".join(_inline(child) for child in token.children or ())
    return "\n" if token.type in ("softbreak", "hardbreak") else token.content
