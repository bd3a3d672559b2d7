"""Cleaning makes texts readable, touches nothing that is readable already, and is done when it is done once."""

import time
from pathlib import Path
from typing import Any

import ftfy
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stages.common.params.clean import CleanParams, Pii
from stages.common.text import steps as text_steps
from stages.common.text.cleaning import FILE, TextCleaning, settle

EVERYTHING = CleanParams(
    normalization="NFKC",
    strip_markdown=True,
    simplify_chinese=True,
    pii=Pii(kinds=["email", "phone", "card"], phone_region="US"),
)


def series(*texts: str | None) -> pl.Series:
    return pl.Series(texts, dtype=pl.String)


def cleaned(*texts: str | None, **settings: Any) -> list[str | None]:
    return CleanParams(**settings).text_cleaning.column(series(*texts))[0].to_list()


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        ("Fish &amp;amp; chips", "Fish & chips"),
        ("&lt;b&gt;bold&lt;/b&gt; &#39;words&#39;", "bold 'words'"),
        ("caf&eacute; &#233; &#xE9; &#0000000000233;", "café é é é"),
        ("&#" + "9" * 5000 + ";", "\ufffd"),
        ("â€œquotedâ€\x9d", '"quoted"'),
        ("one<br />two<BR>three", "one two three"),
        ("a<!-- a comment\nover lines -->b", "a b"),
        ("<!DOCTYPE html><style>p {color: red}</style>a <script src='x'>b < c</script>d", "a d"),
        ("<<b>b>nested</<i>b>", "< b>nested</ b>"),
        ("bell\x07 and nul\x00 and escape\x1b[31m", "bell and nul and escape"),
        ("zero\u200bwidth\ufeff so\u00adft wo\u2060rd <\u200bb>hidden</b>", "zerowidth soft word hidden"),
        ("  blanks \t and\r\nlines\u00a0\u3000here  ", "blanks and lines here"),
        ("e\u0301 ﬁne ﬂag", "é fine flag"),
        ("\ufeff <br>&nbsp;<!-- x -->\x00", None),
    ],
)
def test_broken_text_becomes_readable_and_one_with_nothing_left_null(raw: str, readable: str | None) -> None:
    assert cleaned(raw) == [readable]


@pytest.mark.parametrize(
    "text",
    [
        "5 < 6 and 7 > 3 <- this -> that <= and => AT&T, R&D and Q&A",
        "100% sure; $5 #1 @home *wow* [sic] {k} ~ ^ | \\ `code`",
        "see <https://example.org> or <ann@example.org>",
        "naïve 漢字 🎈 👩\u200d👩\u200d👧 שלום \u200fworld",
    ],
)
def test_marks_that_are_no_markup_survive(text: str) -> None:
    assert cleaned(text) == [text]


def test_steps_that_params_switch_off_change_nothing() -> None:
    wide = "ＡＢＣ１２３，！ｶ x² ™ ①"
    assert [*cleaned(wide), *cleaned(wide, normalization="NFKC")] == [wide, "ABC123,!カ x2 TM 1"]
    assert cleaned("<b>a</b> &amp; b", strip_html=False) == ["<b>a</b> & b"]


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("a **bold** and *slanted* and __both__ and ~~gone~~ word", "a bold and slanted and both and gone word"),
        ("see [the page](https://example.org 'title') and ![a cat](cat.png)", "see the page and a cat"),
        ("[one][1] and [two]\n\n[1]: https://a.example\n[two]: <b>", "one and two"),
        ("# Title\n\ntext\n\nSecond\n======\nmore", "Title text Second more"),
        ("1986. What a year.\nIndeed.", "1986. What a year. Indeed."),
        ("> quoted\n> text\n\nreply", "quoted text reply"),
        ("```python\nx = a*b*c\n```\nand `code`", "x = a*b*c and code"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a b 1 2"),
        ("&lt;b&gt;**both**&lt;/b&gt;", "both"),
        *((text, text) for text in ("2*3*4", "what the f**k and sh*t, f*ck", "the [sic] film (2001)", "# 1 movie!")),
        *((text, text) for text in ("> 5 minutes is too long", "1. It is bad", "***** five stars *****", "C:\\a")),
    ],
)
def test_markdown_gives_way_to_its_text_and_ordinary_texts_are_none(raw: str, plain: str) -> None:
    assert cleaned(raw, strip_markdown=True) == [plain]


def test_traditional_chinese_becomes_simplified_by_phrases() -> None:
    assert cleaned("這部電影說的是乾隆，頭髮乾燥", simplify_chinese=True) == ["这部电影说的是乾隆，头发干燥"]
    others = ["東京の時間は長い", "한국어 漢字 混用"]
    assert cleaned(*others, simplify_chinese=True) == others, "Japanese and Korean keep their characters"


MARKS = st.sampled_from([
    "&", "&amp;", "amp;", "lt;", "&lt;", "&gt;", "&#39", "&#97;", ";", "<", ">", "b", "/", "<b>", "</", "<!--", "-->",
    "*", "**", "_", "`", "~~", "[", "](", ")", "[a](b)", "![", "\\", "#", "# ", "- ", "1. ", "> ", "|", "|-|", "```",
    " ", "  ", "\t", "\n", "\n\n", "\r", "\u2028", "\u00a0", "\u3000", "\u200b", "\u00ad", "\ufeff", "\u200f",
    "\x1b[0m", "\x00", "\x85", "\x9d", "'", "’", "“", "ʼ", "Ã", "Â", "â€", "Ã¶", "œ", "é", "É", "ﬁ", "Ａ", "\u0301",
    "´", "1", "555", "+1 ", "(650) ", "253-0000", "6502530000", "4111 1111 1111 1111", "a@b.co", "@", ".com", "order ",
    "[EMAIL]", "]:", "漢", "說", "の", "薴", "🎈", "\U000e0067", "a", "Z", "script", "<script>", "</script>",
])  # fmt: skip
TEXT = st.text(max_size=40) | st.lists(st.text(max_size=4) | MARKS, max_size=14).map("".join)
MOJIBAKE_PIECES = st.text(st.sampled_from("aéößñ漢“’…—€™ÃÂâ Ð²вЂГœ°½ "), min_size=1, max_size=8)
FTFY = ftfy.TextFixerConfig(unescape_html=False, fix_character_width=False, normalization=None)
KINDS = st.lists(st.sampled_from(["email", "phone", "card"]), unique=True)
PARAMS = st.builds(
    CleanParams,
    normalization=st.sampled_from(["NFC", "NFKC"]),
    strip_html=st.booleans(),
    strip_markdown=st.booleans(),
    simplify_chinese=st.booleans(),
    pii=st.builds(Pii, kinds=KINDS, phone_region=st.sampled_from([None, "US", "DE", "CN"])),
)


@given(st.lists(st.none() | TEXT, max_size=5), PARAMS)
def test_cleaning_twice_is_cleaning_once(texts: list[str | None], params: CleanParams) -> None:
    once, _ = settle(series(*texts), params.text_cleaning.steps())
    for text in once.drop_nulls():
        assert text and text == text.strip(" ") and "  " not in text
        assert not set(text) & {*map(chr, range(32)), "\x7f", "\u00ad", "\u200b", "\u2060", "\ufeff"}
    again, changed = settle(once, params.text_cleaning.steps())
    assert again.equals(once, null_equal=True) and not any(changed.values())


@given(
    TEXT | st.text(st.characters(min_codepoint=0x80, max_codepoint=0x2122), max_size=12) | MOJIBAKE_PIECES,
    st.sampled_from(["utf-8", "latin-1", "windows-1252", "windows-1251", "macroman", "cp437"]),
)
def test_the_fast_path_of_encodings_gives_what_ftfy_gives(text: str, code: str) -> None:
    broken = text.encode(errors="replace").decode(code, errors="replace")
    texts = [broken, f"it was {broken}, really", text]
    slowly = [ftfy.fix_text(candidate, FTFY) for candidate in texts]
    assert text_steps.repair_encoding(series(*texts)).to_list() == slowly


@given(TEXT)
def test_the_fast_path_of_markdown_leaves_alone_only_what_has_no_marks(text: str) -> None:
    assume("\x00" not in text)  # control characters are gone by then
    fast = text_steps.strip_markdown(series(text))[0]
    assert fast.split() == text_steps.plain_text(text).split()


@given(st.lists(TEXT | MOJIBAKE_PIECES | st.text("ab1 <&@’“é\u00a0\u0301漢,.-*", max_size=12), max_size=4), PARAMS)
def test_a_few_texts_are_cleaned_as_a_column_of_them_is(texts: list[str], params: CleanParams) -> None:
    """Serving takes a short cut past texts that need nothing; the data never do."""
    cleaning = params.text_cleaning
    assert cleaning.texts(texts) == cleaning.column(series(*texts))[0].fill_null("").to_list()


def test_the_record_of_the_steps_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert TextCleaning.read(tmp_path) is None
    (tmp_path / FILE).write_text(EVERYTHING.text_cleaning.as_text())
    assert TextCleaning.read(tmp_path) == EVERYTHING.text_cleaning
    (tmp_path / FILE).write_text('{"strip_htlm": true, "pii": []}')
    with pytest.raises(ValueError, match=FILE):
        TextCleaning.read(tmp_path)


def test_each_step_counts_the_texts_that_it_changed_once_each() -> None:
    texts = series("plain", "a &amp;amp; b", "<<b>b>&lt;i>x", None, "it’s  so", "&#32;")
    _, changed = settle(texts, CleanParams().text_cleaning.steps())
    assert changed == {"entities": 3, "encoding": 1, "invisible": 0, "html": 1, "normalise": 0, "whitespace": 2}


def test_a_text_that_never_settles_is_null_and_harms_no_other() -> None:
    swap = {"swap": lambda texts: texts.str.replace_many({"ping": "pong", "pong": "ping"})}
    texts, changed = settle(series("ping", "rest", None), swap)
    assert (texts.to_list(), changed) == ([None, "rest", None], {"swap": 1})
    assert cleaned("<a" * 30_000 + ">" * 30_000, "rest") == [None, "rest"]


@pytest.mark.parametrize("pattern", [*"<[*@1`", "<a ", "<!--", "<script>", "&#1", "Ã", "a@b.", "\n> "])
def test_no_step_takes_long_over_a_hostile_text(pattern: str) -> None:
    started = time.process_time()
    settle(series((pattern * 100_000)[:100_000]), EVERYTHING.text_cleaning.steps())
    assert time.process_time() - started < 5  # what is quadratic takes minutes
