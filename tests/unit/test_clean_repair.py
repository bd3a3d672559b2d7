"""Repair makes texts readable and touches nothing that is readable already."""

import string
from typing import Any

import ftfy
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.repair import PLAIN, repair, unescape
from stages.common.params import CleanParams

Records = Any


def repaired(*texts: str | None, **settings: Any) -> list[str | None]:
    records = pl.DataFrame({"text": texts, "text_pair": texts}, schema={"text": pl.String, "text_pair": pl.String})
    result = repair(records, CleanParams(**settings))
    assert result["text"].to_list() == result["text_pair"].to_list(), "both texts of a pair are repaired alike"
    return result["text"].to_list()


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        ("Fish &amp; chips", "Fish & chips"),
        ("Fish &amp;amp; chips", "Fish & chips"),
        ("Fish &amp;amp;amp; chips", "Fish & chips"),
        ("&lt;b&gt;bold&lt;/b&gt; &#39;words&#39;", "bold 'words'"),
        ("caf&eacute; &#233; &#xE9;", "café é é"),
        ("schÃ¶n und grÃ¼n", "schön und grün"),
        ("âœ” No problems", "✔ No problems"),
        ("â€œquotedâ€\x9d", '"quoted"'),
        ("“curly” ‘quotes’ it’s", "\"curly\" 'quotes' it's"),
        ("one<br />two<BR>three", "one two three"),
        ('<p class="x">a <a href="y">link</a></p>', "a link"),
        ("a<!-- a comment\nover lines -->b", "a b"),
        ("bell\x07 and nul\x00 and escape\x1b[31m", "bell and nul and escape"),
        ("zero\u200bwidth\ufeff so\u00adft wo\u2060rd", "zerowidth soft word"),
        ("  blanks \t and\r\nlines\u00a0\u3000here  ", "blanks and lines here"),
        ("e\u0301", "é"),
        ("ﬁne ﬂag", "fine flag"),
        ("naïve 漢字 🎈", "naïve 漢字 🎈"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
    ],
)
def test_broken_text_becomes_readable(raw: str, readable: str) -> None:
    assert repaired(raw) == [readable]


@pytest.mark.parametrize(
    "text",
    [
        "5 < 6 and 7 > 3",
        "a<5 and b>3",
        "I <3 this film",
        "AT&T, R&D and Q&A",
        "x & y",
        "100% sure; $5 #1 @home *wow* [sic] {k} ~ ^ | \\ `code`",
        "<- this -> that <= and =>",
    ],
)
def test_marks_that_are_no_markup_survive(text: str) -> None:
    assert repaired(text) == [text]


@pytest.mark.parametrize("nothing", ["", " ", "\u200b", "<br>", "\x00\x01", "&nbsp;", "<!-- x -->", "\ufeff \u00ad"])
def test_a_text_with_nothing_left_is_null(nothing: str) -> None:
    assert repaired(nothing, None) == [None, None]


def test_html_stays_when_params_say_so_but_entities_never_do() -> None:
    assert repaired("<b>a</b> &amp; b", strip_html=False) == ["<b>a</b> & b"]


def test_full_width_characters_are_folded_under_nfkc_alone() -> None:
    assert repaired("ＡＢＣ１２３！ｶ", normalization="NFKC") == ["ABC123!カ"]
    assert repaired("x² ™", normalization="NFC") == ["x² ™"]


def test_no_other_column_is_touched(records_of: Records) -> None:
    records = records_of([{"text": "a&amp;b", "label": "x&amp;y", "group": " g ", "extra": '{"a": "<b>"}'}])
    result = repair(records, CleanParams())
    assert result.drop("text").equals(records.drop("text"))
    assert result["text"].to_list() == ["a&b"]


def test_entities_are_resolved_three_times_and_no_more() -> None:
    assert unescape("&amp;amp;amp;amp;") == "&amp;"


def slow(text: str, normalization: str) -> str:
    """What a text becomes without the fast path."""
    config = ftfy.TextFixerConfig(normalization=normalization, unescape_html=False)  # type: ignore[arg-type]
    return ftfy.fix_text(unescape(text), config)


PRINTABLE = st.text(st.sampled_from(string.printable[:95]), max_size=60)
PIECES = st.sampled_from(
    ["&", "amp;", "lt;", "#39", "<", ">", "b", "/", "!--", "-->", " ", "\t", "\n", "\x1b[0m", "'", "."]
)


@given(PRINTABLE | st.lists(PIECES, max_size=12).map("".join), st.sampled_from(["NFC", "NFKC"]))
def test_the_fast_path_gives_what_the_slow_path_gives_for_any_ascii(text: str, normalization: str) -> None:
    slowly = pl.Series([slow(text, normalization)])
    for pattern, by in ((r"(?s)<!--.*?-->", " "), (r"</?[A-Za-z][^<>]*>", " "), (r"\s+", " ")):
        slowly = slowly.str.replace_all(pattern, by)
    assert repaired(text, normalization=normalization) == [slowly.str.strip_chars()[0] or None]


@given(PRINTABLE)
def test_the_fast_path_is_taken_for_every_printable_text_without_markup(text: str) -> None:
    assert pl.Series([text]).str.contains(PLAIN)[0] == (not {"&", "<"} & set(text))


@given(st.text(max_size=40))
def test_repaired_text_has_no_control_characters_and_no_blanks_at_its_ends(text: str) -> None:
    (result,) = repaired(text)
    if result is not None:
        assert result == result.strip(" ")
        assert "  " not in result
        assert not set(result) & {*map(chr, range(32)), "\x7f", "\u00ad", "\u200b", "\u2060", "\ufeff"}


@given(st.lists(st.none() | st.text(max_size=20), max_size=6))
def test_a_row_is_repaired_the_same_whatever_stands_beside_it(texts: list[str | None]) -> None:
    assert repaired(*texts) == [repaired(text)[0] for text in texts]


def test_a_huge_text_is_repaired_as_a_short_one_is() -> None:
    assert repaired("caf&eacute; " * 100_000) == [("café " * 100_000).strip()]
