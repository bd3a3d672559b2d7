"""Both pages of a review: the verdict first, all sections, and nothing that a text of the data or the commit wants."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.reviewing.findings import Changes, Review
from flows.reviewing.page import LIMITS, MARK, render
from flows.reviewing.verdict import verdict_of
from stages.common.pages.charts import chart
from tests.unit.harmless_markdown import NASTY, assert_harmless
from tests.unit.seen_page import Seen, assert_shown_and_idle
from tests.unit.small_review import foreign_review, make_changes, make_effect, make_rebuild, make_review, many


def page(review: Review) -> str:
    return render(review, verdict_of(review), markdown=False)


def comment(review: Review) -> str:
    return render(review, verdict_of(review), markdown=True)


KNOWN = Seen(page(foreign_review("harmless")))


def test_the_verdict_comes_first_and_each_section_follows_on_both_pages() -> None:
    review = make_review(changes=make_changes())
    text, page_text = comment(review), Seen(page(review)).text
    assert text.startswith(f"{MARK}\n\n## Review of `faster`: A lower learning rate")
    names = ["What changed", "What it did", "Can it be rebuilt", "Where it comes from"]
    places = [text.index("**Rebuilt from nothing:** all 8 outs"), *(text.index(f"### {name}") for name in names)]
    assert places == sorted(places)
    assert all(f'href="#{anchor}"' in page(review) for anchor in ("risks", "changes", "effect", "rebuild", "lineage"))
    for line in (
        "- ✓ **Gates:** all 3 passed",
        "| `finetune.learning_rate` | `0.00015` | `0.0001` | Peak learning rate. |",
        "| `finetune` | ran again | params: `finetune.learning_rate` 0.00015 → 0.0001<br>A lower learning rate |",
        "| `train` | `10,180` | `10,181` | `1` |",
        "| `macro_f1` | +0.0123 [+0.0031, +0.0215] | better | 0.8200 → 0.8323 | 1281 |",
        "| `a moving film row 0`<br>`a moving film` | `a moving film 0` | `a moving film 1` 0.90 |",
        "| `a moving film 0` | `a moving film 1` | 10 | 3 | -7 |",
        "| calibration error | 0.0306 | 0.0281 |",
        "| weights | 22,714,498 | – |",
    ):
        assert line in text, line
        assert " ".join(re.sub(r"[`|*]|<br>|^- ✓", " ", line).split()) in page_text, line
    assert_harmless(text)


@pytest.mark.parametrize("hostile", NASTY)
def test_a_hostile_text_is_shown_and_does_nothing(hostile: str) -> None:
    review = foreign_review(hostile)
    plain = hostile.isprintable() and len(hostile) < 40 and "`" not in hostile
    assert_shown_and_idle(page(review), hostile if plain else "\x00", KNOWN, times=20)
    assert_harmless(comment(review))


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=80))
def test_any_text_at_all_is_harmless(text: str) -> None:
    review = foreign_review(text)
    assert_harmless(comment(review))
    parsed = Seen(page(review))
    assert parsed.tags <= KNOWN.tags and parsed.attributes <= KNOWN.attributes


def test_both_pages_stay_small_whatever_there_is_to_say() -> None:
    review = many()
    html = page(review)
    assert len(html.encode()) <= LIMITS["review.html.j2"][0] and "default-src 'none'" in html and "://" not in html
    text = comment(review)
    assert len(text.encode()) <= LIMITS["review.md.j2"][0] < 65_536
    assert " more." in text and text.index("Gates:") < 2000
    assert_harmless(text)


@pytest.mark.parametrize(
    ("review", "words"),
    [
        (make_review(base=None, changes=None, effect=None, failure="no such file"), "no such file"),
        (make_review(changes=Changes(), effect=make_effect("same")), "no version, no row of the data"),
        (make_review(rebuild=make_rebuild("failed", "no memory")), "ValueError: no memory"),
    ],
)
def test_a_review_that_lacks_parts_still_says_what_there_is(review: Review, words: str) -> None:
    text, page_text = comment(review), Seen(page(review)).text
    assert words in text and words in page_text
    assert "Where it comes from" in page_text and "None" not in text
    assert_harmless(text)


def test_curves_of_both_are_drawn_over_each_other_on_the_page_alone() -> None:
    html = page(make_review())
    assert html.count("<svg") == 2 and "0.07 training loss 0.7" not in html
    assert 'aria-label="training loss over step"' in html
    assert html.count('<polyline class="base"') == html.count('<polyline class="head"') == 2
    assert "0.7 training loss 0.07" in Seen(html).text and "0 step 8" in Seen(html).text
    assert "Curves are drawn in `review.html`." in comment(make_review())
    plain = make_review(effect=make_effect(curves=(), figures=()))
    assert "<svg" not in page(plain) and "Curves" not in comment(plain)


def test_a_line_of_very_many_points_is_drawn_whole_with_fewer() -> None:
    lines = {"base": [(float(step), float(step % 7)) for step in range(100_000)], "head": [(0.0, 1.0)]}
    html = page(make_review(effect=make_effect(curves=(chart("step", "loss", lines),))))
    (points,) = re.findall(r'class="base" points="([^"]*)"', html)
    assert 200 < points.count(",") <= 400 and points.split()[-1].startswith("199.")


def test_secrets_reach_no_page_even_where_a_text_is_cut() -> None:
    secrets = "git+https://me:geheim-1234@example.org and hf_abcdefghijklmnopqrstuvwxyz0123"
    for filler in ("", "x" * 35, "x" * 55, "x" * 1180):
        review = foreign_review(f"{filler} {secrets}")
        for text in (comment(review), page(review)):
            assert "geheim" not in text and "hf_abc" not in text
