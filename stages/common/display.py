"""Texts of the data as people see them: short, on one line, without invisible characters or private data."""

import unicodedata
from collections.abc import Callable, Sequence

Mask = Callable[[str], str]

JOINERS = "\u200c\u200d"  # emoji, Persian and Indian scripts need them
READ = 20  # times as much is masked as is displayed, so that no half of an address stands at the cut


def display(text: str | None, most: int, mask: Mask | None = None) -> str:
    """Return at most `most` characters of a text, masked if asked, with invisible characters named.

    Control characters could command a terminal, and those for the direction of writing reverse a page: each becomes
    its code, such as ⟨U+202E⟩. Line ends and tabs become spaces.
    """
    if text is None:
        return ""
    start = text[: most * READ]
    line = visible(mask(start) if mask else start)
    return line if len(line) <= most and len(start) == len(text) else line[: most - 1] + "…"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first of some names: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def visible(text: str) -> str:
    """Return the text with each invisible character replaced by its code."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    if character in "\n\r\t\x0b\x0c\x85\u2028\u2029" or unicodedata.category(character) == "Zs":
        return " "
    return f"⟨U+{ord(character):04X}⟩"
