"""What people see of a text is short, complete in what it hides, and does nothing."""

from hypothesis import given
from hypothesis import strategies as st

from stages.common.display import JOINERS, display


def test_an_ordinary_text_is_shown_as_it_is() -> None:
    assert display("Ein schöner Film, 电影 😀!", 80) == "Ein schöner Film, 电影 😀!"
    assert display(None, 80) == ""


def test_a_long_text_is_cut_with_a_mark() -> None:
    assert display("x" * 10, 10) == "x" * 10
    assert display("x" * 11, 10) == "x" * 9 + "…"


def test_characters_without_a_form_are_named() -> None:
    assert (
        display("a\x1b[31mred\x00 \u202eback\u2066 \ue000", 80)
        == "a⟨U+001B⟩[31mred⟨U+0000⟩ ⟨U+202E⟩back⟨U+2066⟩ ⟨U+E000⟩"
    )
    assert display("two\r\nlines\tand\u00a0a\u2028third", 80) == "two  lines and a third"
    assert display("👨\u200d👩\u200d👧", 80) == "👨\u200d👩\u200d👧"


def test_a_private_word_at_the_cut_is_masked_before_the_text_is_cut() -> None:
    text = "x" * 70 + " me@example.org"
    assert display(text, 80, lambda whole: whole.replace("me@example.org", "[EMAIL]")) == "x" * 70 + " [EMAIL]"


@given(st.text(), st.integers(1, 100))
def test_any_text_is_short_and_printable(text: str, most: int) -> None:
    seen = display(text, most)
    assert len(seen) <= most
    assert all(character.isprintable() or character in JOINERS for character in seen)
