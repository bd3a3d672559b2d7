"""How findings are put in words: names in backticks, numbers with their signs, lists that end."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from flows.reviewing.findings import Figure, Gain
from stages.common.redact import redacted
from stages.common.shown import READ, Mask, shown

NAME = 60  # characters of a name that stems from the data or the commit
DIGITS = 7  # of the shortest telephone number
HOW = 200  # of a line that another part of the review wrote

Tone = Literal["good", "warn", "bad"]


class Line(NamedTuple):
    """A sentence without its full stop, and how it is meant."""

    tone: Tone
    text: str


def quoted(name: object, most: int = NAME) -> str:
    """Return a foreign name between backticks, of which it holds none itself; pages show it as code."""
    return f"`{unquoted(name, most) or '–'}`"


def unquoted(text: object, most: int = HOW) -> str:
    """Return a foreign line without secrets, which has no say in what is code around it."""
    return shown(redacted(str(text)[: most * READ]).replace("`", "'"), most).strip()


def pieces(sentence: str) -> list[tuple[bool, str]]:
    """Return the parts of a sentence, each with whether it stands between backticks."""
    return [(bool(at % 2), piece) for at, piece in enumerate(sentence.split("`")) if piece]


def masked(sentence: str, mask: Mask | None) -> str:
    """Return a sentence with personal data masked: in names as in any text, elsewhere in each word by itself.

    A mask takes "0.9000 (23 of" for a telephone number, which is right for the texts of data, not for our words.
    """
    if mask is None:
        return sentence
    parts = sentence.split("`")
    for at, part in enumerate(parts):
        words = [part] if at % 2 else re.split(r"(\s+)", part)
        parts[at] = "".join(mask(word) if _may_be_private(word) else word for word in words)
    return "`".join(parts)


def _may_be_private(word: str) -> bool:
    return "@" in word or sum(map(str.isdigit, word)) >= DIGITS


def few(names: Sequence[str], most: int = 4) -> str:
    """Return a list of at most so many names, with how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def counted(number: int, one: str, many: str = "") -> str:
    """Return `1 row`, `2 rows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def interval(gain: Gain) -> str:
    """Return `+0.0123 [+0.0031, +0.0215]`."""
    return f"{gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def number(value: float | None, unit: str = "") -> str:
    """Return a number with as many digits as it is worth, and its unit."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if 0 < size < 0.001:
        told = f"{value:.2e}"
    else:
        digits = 0 if size >= 1000 else 1 if unit and size >= 10 else 2 if unit and size >= 1 else 4
        told = f"{value:,.{digits}f}"
    return f"{told} {unit}" if unit else told


def grown(figure: Figure) -> str:
    """Return by how much a figure differs: `+12.3 %`, of those without a unit `+0.0123`; nothing if one is missing."""
    if figure.base is None or figure.head is None:
        return "–"
    if figure.base == figure.head:
        return "same"
    if not figure.unit or figure.unit == "%" or not figure.base:
        unit = " points" if figure.unit == "%" else f" {figure.unit}" if figure.unit else ""
        return f"{figure.head - figure.base:+.4g}{unit}"
    return f"{100 * (figure.head / figure.base - 1):+.1f} %"


def trend_of(figure: Figure) -> str:
    """Return `better`, `worse` or `same`, or nothing where neither way is better."""
    if figure.base is None or figure.head is None or figure.better == "neither":
        return ""
    if figure.base == figure.head:
        return "same"
    return "better" if (figure.head < figure.base) == (figure.better == "lower") else "worse"


def seconds(values: Iterable[float]) -> str:
    """Return a wall time as people say it."""
    total = sum(values)
    return f"{total:.1f} s" if total < 100 else f"{total:.0f} s" if total < 600 else f"{total / 60:.0f} min"
