"""The page of a review: all of it in one file that does nothing that the data or the commit want."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seen_page import HOSTILE, Seen, assert_shown_and_idle
from small_review import NASTY, foreign_review, make_changes, make_effect, make_gain, make_rebuild, make_review, many

from flows.reviewing.findings import Changes, Curve, Review
from flows.reviewing.pages.page import LIMIT, page
from flows.reviewing.pages.plots import drawing, heat, whiskers
from flows.reviewing.pages.verdict import verdict_of
from stages.common.pii import mask_text


def page_of(review: Review, mask: Any = None) -> str:
    return page(review, verdict_of(review), mask)


NONE = np.zeros((0, 0), dtype=np.int64)
KNOWN = Seen(page_of(foreign_review("harmless")))


def test_the_page_tells_the_verdict_and_all_five_sections() -> None:
    text = Seen(page_of(make_review(changes=make_changes()))).text
    for told in (
        "Review of faster A lower learning rate",
        "✓ Rebuilt from nothing: all 8 outs have the bytes that dvc.lock says ✓ Gates: 3 of 3 passed ✓ Better:",
        "finetune.learning_rate Peak learning rate. 0.00015 0.0001",
        "finetune ran again params: finetune.learning_rate 0.00015 → 0.0001",
        "export ran again data: models/finetuned/model.safetensors the same bytes came out",
        "pipeline 1 file +1 -1",
        "tokenizers 0.21.0 A lower learning rate 0.21.0",
        "macro f1 +0.0123 [+0.0031, +0.0215] 0.8200 → 0.8323 1,281",
        "Fixed: 31",
        "Broken: 18 a moving film row 0",
        "label a moving film 0 base a moving film 1 90.0 % → head a moving film 0 95.0 %",
        "+7 210 → 217",
        "calibration error 0.0306 0.0281 -0.0025",
        "finetune 1 identical 12.5 s",
        "model " + "80" * 32,
        "python -m flows.lineage films/4",
    ):
        assert told in text, told


def test_the_page_loads_and_runs_nothing() -> None:
    html = page_of(make_review())
    assert not KNOWN.tags & {"script", "link", "img", "iframe", "object", "form", "base", "video"}
    assert not KNOWN.attributes & {"src", "srcset", "action", "onclick", "onload"}
    assert "default-src 'none'" in html
    assert "url(" not in html
    assert "://" not in html
    assert html.count("href=") == html.count('href="#')


def test_links_lead_to_their_sections() -> None:
    html = page_of(make_review())
    for part in ("risks", "changes", "effect", "rebuild", "lineage"):
        assert f'href="#{part}"' in html
        assert f'id="{part}"' in html


@pytest.mark.parametrize("hostile", [*HOSTILE, *(text for text in NASTY[len(HOSTILE) :] if text)])
def test_a_hostile_text_is_shown_and_does_nothing(hostile: str) -> None:
    plain = hostile.isprintable() and len(hostile) < 40 and "`" not in hostile
    assert_shown_and_idle(page_of(foreign_review(hostile)), hostile if plain else "\x00", KNOWN, times=20)


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60))
def test_any_text_at_all_is_harmless(text: str) -> None:
    seen = Seen(page_of(foreign_review(text)))
    assert seen.tags <= KNOWN.tags
    assert seen.attributes <= KNOWN.attributes


@pytest.mark.parametrize(
    "review",
    [foreign_review("'" * 10_000, labels=25), foreign_review("😀" * 300, labels=60), many()],
    ids=["quotes", "sixty labels", "too much"],
)
def test_the_page_stays_small_whatever_there_is_to_say(review: Review) -> None:
    html = page_of(review)
    assert len(html.encode()) <= LIMIT
    assert "more" in html


@pytest.mark.parametrize(
    ("review", "told"),
    [
        (
            make_review(base=None, changes=None, effect=None, gates=(), rebuild=make_rebuild("unrecorded")),
            "There is nothing to compare with.",
        ),
        (make_review(effect=None, base=None, changes=None, failure="no such file"), "no such file"),
        (make_review(changes=Changes(), effect=make_effect("same")), "None: the same rows are right and wrong."),
        (make_review(rebuild=make_rebuild("left out")), "This was left out, as asked."),
        (make_review(rebuild=make_rebuild("failed", "no memory")), "Traceback: ValueError: no memory"),
        (make_review(rebuild=make_rebuild("tampered")), "models/finetuned/model.safetensors, 1 byte differs"),
        (
            make_review(
                effect=make_effect(
                    scores=(),
                    classes=(),
                    slices=(),
                    labels=(),
                    curves=(),
                    rows=0,
                    confusion_base=NONE,
                    confusion_head=NONE,
                )
            ),
            "0 test rows",
        ),
    ],
    ids=["first", "no base", "nothing", "left out", "failed", "tampered", "empty"],
)
def test_a_review_that_lacks_parts_still_says_what_there_is(review: Review, told: str) -> None:
    text = Seen(page_of(review)).text
    assert told in text
    assert "Where it comes from" in text
    assert "nan" not in text


def test_what_is_private_is_masked_and_our_numbers_stay() -> None:
    mask = partial(mask_text, phone_region=None)
    html = page_of(make_review(effect=make_effect(text="ask me@example.org")), mask)
    assert "me@example.org" not in html
    assert "[EMAIL]" in html
    gate = {"gate": "behaviour", "passed": True, "reason": "pass rate 0.9000 (23 of 30 cases passed)"}
    assert "0.9000 (23 of 30 cases" in Seen(page_of(make_review(gates=(gate,)), mask)).text


def test_secrets_do_not_reach_the_page() -> None:
    html = page_of(foreign_review("git+https://me:geheim-1234@example.org and hf_abcdefghijklmnopqrstuvwxyz0123"))
    assert "geheim" not in html
    assert "hf_abc" not in html


def test_gains_are_drawn_around_a_zero_in_the_middle() -> None:
    plot = whiskers([make_gain("a", 0.03, 0.01), make_gain("b", float("nan"), 0.01)], 5)
    assert [mark.label for mark in plot.marks] == ["-0.05", "0", "+0.05"]
    first, other = plot.ranges
    assert first is not None
    assert (first.low, first.middle, first.high) == pytest.approx((0.7, 0.8, 0.9))
    assert other is None


def test_curves_share_their_axes_and_lose_what_is_no_number() -> None:
    plot = drawing(Curve("loss", ((0, 1.0), (10, 0.5)), ((0, 0.9), (5, float("nan")), (10, 0.42)), "step"))
    assert [mark.label for mark in plot.up] == ["0.4", "0.6", "0.8", "1"]
    assert [line.name for line in plot.lines] == ["head", "base"]
    assert plot.lines[1].points == "0.0,0.0 200.0,166.7"
    assert plot.last == (0.5, 0.42)
    assert drawing(Curve("loss", (), (), "step")).lines == ()
    assert drawing(Curve("flat", (), ((1.0, 0.0),), "step")).lines[0].points == "100.0,100.0"


def test_a_wide_confusion_matrix_shows_the_labels_that_changed_most() -> None:
    base = np.zeros((40, 40), dtype=np.int64)
    head = base.copy()
    head[30, 35], head[2, 2] = 5, -3
    found = heat([f"label {at}" for at in range(40)], base, head)
    assert found is not None
    assert found.labels == ("label 2", "label 30", "label 35")
    assert found.more == 37
    every = heat([f"label {at}" for at in range(40)], base, base + np.arange(40))
    assert every is not None
    assert list(every.labels) == sorted(every.labels, key=lambda name: int(name.split()[1]))
    assert "label 39" in every.labels
    assert len(every.labels) == 12
    assert heat(["a"], base[:1, :1], base[:1, :1]) is None


def test_the_same_review_gives_the_same_page() -> None:
    review = make_review(changes=make_changes())
    assert page_of(review) == page_of(replace(review))
