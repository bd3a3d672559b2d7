"""Markdown in which foreign texts do nothing: what a renderer makes of it is our own elements, words and code."""

import re

from markdown_it import MarkdownIt

from flows.reviewing.page import MARK
from tests.unit.seen_page import HOSTILE

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OURS = {
    *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "html_block"),
    *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
    *(f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")),
    *("text", "code_inline", "fence", "softbreak", "html_inline", "strong_open", "strong_close", "text_special"),
}
NASTY = [
    *HOSTILE,
    "</details><script>alert(1)</script>",
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) <http://evil.example>",
    "@everyone, owner/repo#1, GH-3, :tada:, $x^2$, www.evil.example me@example.org",
    "| pipes | \\| and `ticks` ``` more `` |\n|---|---|",
    "\\`<b>\\`|<b>|\\",
    "two\nlines\n\n# heading\n\n- list\n\n---\n\n    code\n\n```\n<b>\n```",
    "1. one",
    "~~~\n</code></pre><b>",
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07\u202e\x00",
]


def assert_harmless(text: str) -> None:
    """Check that nothing but our own elements is in Markdown, and no word that GitHub makes a link or mention of."""
    tokens = [token for block in RENDERER.parse(text) for token in (block, *(block.children or []))]
    for token in tokens:
        assert token.type in OURS, (token.type, token.content)
        if token.type in ("html_inline", "html_block"):
            assert re.fullmatch(rf"<br>|{MARK}|</details>|<details><summary>[^<>]*</summary>", token.content.strip())
        if token.type == "text":
            assert not {"@", "<", "#", "$", "~", "\u202e", "\x1b"} & set(token.content), token.content
            assert "://" not in token.content and "www." not in token.content.lower()
    assert text.count("<details>") == text.count("\n</details>\n")
    assert not {"\u202e", "\u2066", "\x00", "\x07", "\x1b", "\ufffe"} & set(text)
