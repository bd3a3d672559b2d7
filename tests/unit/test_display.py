"""What people see of a text is short, complete in what it hides, and does nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.display import JOINERS, display


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ""),
        ("Ein schöner Film, 电影 😀!" + "x" * 57, "Ein schöner Film, 电影 😀!" + "x" * 57),
        ("x" * 81, "x" * 79 + "…"),
        ("a\x1b[31mred\x00 \u202eback \ue000", "a⟨U+001B⟩[31mred⟨U+0000⟩ ⟨U+202E⟩back ⟨U+E000⟩"),
        ("two\r\nlines\tand\u00a0a\u2028third", "two  lines and a third"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ],
)
def test_a_text_is_cut_with_a_mark_and_its_invisible_characters_are_named(text: str | None, expected: str) -> None:
    assert display(text, 80) == expected


def test_a_private_word_at_the_cut_is_masked_before_the_text_is_cut() -> None:
    text = "x" * 70 + " me@example.org"
    assert display(text, 80, lambda whole: whole.replace("me@example.org", "[EMAIL]")) == "x" * 70 + " [EMAIL]"
    assert display(text, 80) == "x" * 70 + " [EMAIL]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call 555-123-4567", "call [PHONE]"),
        ("4111 1111 1111 1111", "[CARD]"),
        ("on 2024-05-03 at 12:30", "on 2024-05-03 at 12:30"),
        ("9f86d081884c7d65.2", "9f86d081884c7d65.2"),
    ],
)
def test_what_a_message_quotes_is_masked_unless_it_is_not_of_the_data(text: str, expected: str) -> None:
    assert (display(text, 80), display(text, 80, None)) == (expected, text)


@given(st.text(), st.integers(1, 100))
def test_any_text_is_short_and_printable(text: str, most: int) -> None:
    line = display(text, most)
    assert len(line) <= most
    assert all(character.isprintable() or character in JOINERS for character in line)
