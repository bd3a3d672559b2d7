"""The comment of a review: harmless Markdown with the verdict first, whatever the data and the commit hold."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from small_review import (
    MODEL,
    NASTY,
    foreign_review,
    make_changes,
    make_effect,
    make_rebuild,
    make_review,
    make_revision,
    many,
)

from flows.data_changes import Listing
from flows.reviewing.findings import Changes, Review
from flows.reviewing.pages.comment import LIMIT, MARK, comment
from flows.reviewing.pages.verdict import verdict_of
from flows.told.markdown import said
from stages.common.pii import mask_text

NONE = np.zeros((0, 0), dtype=np.int64)
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HTML = {"<br>", MARK}
OURS = {
    *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "html_block", "fence"),
    *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
    *(f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")),
    *("text", "code_inline", "softbreak", "html_inline", "strong_open", "strong_close", "text_special"),
}


def told(review: Review, mask: Any = None) -> str:
    return comment(review, verdict_of(review), mask)


def tokens(text: str) -> list[Any]:
    found = []
    for token in RENDERER.parse(text):
        found += [token, *(token.children or [])]
    return found


def assert_harmless(text: str) -> None:
    """Check that nothing but our own elements is in a comment, and no word that GitHub makes a link or mention of."""
    for token in tokens(text):
        assert token.type in OURS, (token.type, token.content)
        if token.type in ("html_inline", "html_block"):
            html = token.content.strip()
            assert html in HTML or html == "</details>" or html.startswith("<details><summary>"), html
            assert html.count("<") <= 3, html
        if token.type == "text":
            assert not {"@", "<", "#", "$", "~", "\u202e", "\x1b"} & set(token.content), token.content
            assert "://" not in token.content
            assert "www." not in token.content.lower()
    opened = sum(token.content.count("<details>") for token in tokens(text) if token.type == "html_block")
    assert opened == sum(token.content.count("</details>") for token in tokens(text) if token.type == "html_block")


def structure(text: str) -> list[tuple[str, int]]:
    """The blocks of a comment: what a foreign text must not change."""
    return [(token.type, token.level) for token in RENDERER.parse(text) if token.type != "inline"]


def test_the_verdict_comes_first_and_each_section_follows() -> None:
    text = told(make_review())
    assert text.startswith(f"{MARK}\n\n## Review of `faster`")
    assert text.index("**Rebuilt from nothing:** all 8 outs") < text.index("### What changed")
    places = [text.index(f"### {name}") for name in ("What changed", "What it did", "Can it be", "Where it comes from")]
    assert places == sorted(places)
    for line in (
        "- ✓ **Gates:** 3 of 3 passed",
        "| `finetune.learning_rate` | `0.00015` | `0.0001` | Peak learning rate. |",
        "| `macro_f1` | 0.8200 | 0.8323 | +0.0123 [+0.0031, +0.0215] | better | 1,281 |",
        "**Rows** – 31 fixed, 18 broken",
        "| `a moving film 0` | `a moving film 1` | 10 | 3 | -7 |",
        "`python -m flows.lineage films/4`",
        "`dvc plots diff 1234567812 ab12cd34ab`",
    ):
        assert line in text, line
    assert_harmless(text)


def test_of_a_rebuild_that_differs_the_outs_are_listed() -> None:
    text = told(make_review(rebuild=make_rebuild("different")))
    assert f"| `finetune` | `{MODEL}` | different |" in text
    assert "✗ **Not reproduced:**" in text


@pytest.mark.parametrize("hostile", NASTY)
def test_a_hostile_text_is_shown_and_does_nothing(hostile: str) -> None:
    text = told(foreign_review(hostile))
    assert_harmless(text)
    assert len(text.encode()) <= LIMIT
    assert not {"\u202e", "\u2066", "\x00", "\x07", "\x1b", "\ufffe"} & set(text)
    if hostile.strip() and "\n" not in hostile and not hostile.startswith(("~~~", "```")):
        assert structure(text) == structure(told(foreign_review("harmless")))


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80))
def test_any_text_at_all_is_harmless(text: str) -> None:
    assert_harmless(told(foreign_review(text)))
    assert_harmless(said(text) + "\n")


def test_a_sentence_keeps_its_plain_words_and_shows_all_others_as_code() -> None:
    assert said("gain +0.0123, 95 % interval [+0.0031, +0.0215]: `a b` is (better).") == (
        "gain +0.0123, 95 % interval [+0.0031, +0.0215]: `a b` is (better)."
    )
    assert said("ask @all of a_b*c*, http://evil.example or GH-12") == (
        "ask `@all` of `a_b*c*, http://evil.example` or `GH-12`"
    )


def test_a_comment_fits_whatever_there_is_to_say() -> None:
    text = told(many())
    assert len(text.encode()) <= LIMIT < 65_536
    assert_harmless(text)
    assert "more rows." in text or "too many" in text
    assert text.index("Gates:") < 2000


@pytest.mark.parametrize(
    "review",
    [
        make_review(base=None, changes=None, effect=None, gates=(), rebuild=make_rebuild("unrecorded")),
        make_review(effect=None, failure="the base | could not <b>be</b> run"),
        make_review(changes=Changes(), effect=make_effect("same"), rebuild=make_rebuild("left out")),
        make_review(
            effect=make_effect(
                scores=(), classes=(), slices=(), curves=(), labels=(), rows=0, confusion_base=NONE, confusion_head=NONE
            )
        ),
        make_review(rebuild=make_rebuild("failed", outs=(), seconds={})),
        make_review(
            head=make_revision(results="none", lock={}), rebuild=make_rebuild("tampered", environment_known=False)
        ),
    ],
    ids=["first", "no base", "nothing", "empty", "failed", "tampered"],
)
def test_a_review_that_lacks_parts_still_says_what_there_is(review: Review) -> None:
    text = told(review)
    assert_harmless(text)
    assert "None" not in text
    assert "nan" not in text
    assert "### Where it comes from" in text


def test_what_is_private_is_masked_and_our_numbers_stay() -> None:
    review = foreign_review("ask me@example.org")
    assert "me@example.org" in told(review)
    mask = partial(mask_text, phone_region=None)
    masked = told(replace(review, head=make_revision(), asked_base="main", lineage=make_review().lineage), mask)
    flips = masked[masked.index("<summary>Fixed") : masked.index("**Calibration**")]
    assert "[EMAIL]" in flips
    assert "me@example.org" not in flips
    assert "pass rate 0.9000 (23 of 30" in told(make_review(notes=("pass rate 0.9000 (23 of 30",)), mask)


def test_secrets_do_not_reach_a_comment() -> None:
    text = told(foreign_review("git+https://me:geheim-1234@example.org and --token hf_abcdefghijklmnopqrstuvwxyz0123"))
    assert "geheim" not in text
    assert "hf_abc" not in text


def test_a_row_more_of_the_data_is_counted_before_it_is_listed() -> None:
    changes = make_changes(data=(Listing("Relabelled: 1", ("id", "from", "to"), [["00ff", "a", "b"]]),))
    text = told(make_review(changes=changes))
    assert "**Data** – Relabelled: 1" in text
    assert "| `00ff` | `a` | `b` |" in text
