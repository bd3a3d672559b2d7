"""Texts of the data as people see them: short, on one line, without invisible characters or private data.

Nothing of the data (a label, a cell, what a database or a parser quotes) goes into a message but through `display`.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

Mask = Callable[[str], str]

JOINERS = "\u200c\u200d"  # emoji, Persian and Indian scripts need them
PRIVATE = re.compile(r"[@＠]|\d(?:\D{0,6}\d){6}")  # without these there is nothing to mask, and nothing to import
READ = 20  # times as much is masked as is displayed, so that no half of an address stands at the cut


def masked(text: str) -> str:
    """Return a text with e-mail addresses, phone and card numbers masked, of whatever country."""
    if not PRIVATE.search(text):
        return text
    from stages.common.text.pii import mask_text

    return mask_text(text, None)


def display(text: str | None, most: int, mask: Mask | None = masked) -> str:
    """Return at most `most` characters of a text, masked, with invisible characters named.

    Control characters could command a terminal, and those for the direction of writing reverse a page: each becomes
    its code, such as ⟨U+202E⟩. Line ends and tabs become spaces. Pages have a setting for the mask; None is for what is
    not of the data: paths, addresses, words of Git.
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
