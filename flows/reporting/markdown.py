"""Markdown out of foreign texts: in code spans and fences, where neither HTML nor a link or an image is one."""

import re
from collections.abc import Iterable, Sequence

from stages.common.display import display
from stages.common.redact import redacted

MOST, LINE, SENTENCE = 160, 300, 1200  # characters shown
# Words that are nothing but words wherever they stand: no mark-up, link, mention, emoji or reference to an issue.
WORD = re.compile(
    r"(?!(?i:www\.|gh-\d))[(\"'“]*[^\W_](?:[^\W_]|[.,:/'’%=+-](?=[^\W_]))*[%\"'”?)\].,;:]*"
    r"|\[?[+-]?\d[\d.,]*[\]),;:]*|[→–=×·%]|[(),.;:]+"
)


def plain(text: str, most: int = MOST) -> str:
    """Return foreign text on one line, without secrets and codes for terminals."""
    return display(redacted(text), most, None).strip()


def code(text: str, most: int = MOST) -> str:
    """Return foreign text as a code span of one line, safe in a table as well."""
    line = plain(text, most).replace("|", "¦")
    if not line:
        return "–"
    ticks = "`" * (_longest_ticks(line) + 1)
    space = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def sentence(text: str) -> str:
    """Return a sentence: plain words as they are; what stands between backticks, and any other word, as code."""
    written = ""
    for index, piece in enumerate(plain(text, SENTENCE).split("`")):
        for word in [piece] if index % 2 else re.split(r"(\s+)", piece):
            safe = not word or (not index % 2 and (word.isspace() or WORD.fullmatch(word)))
            written += word if safe else f"{' ' if written.endswith('`') else ''}{code(word, SENTENCE)}"
    written = re.sub(r"(?<=[^`\s])` `(?=[^`\s])", " ", written)  # words of one value
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", written)  # no list


def fenced(lines: Sequence[str]) -> str:
    """Return foreign lines as a block of code."""
    clean = [display(line, LINE, None).rstrip() for line in redacted("\n".join(lines)).split("\n")]
    fence = "`" * max(3, 1 + max(map(_longest_ticks, clean), default=0))
    return "\n".join((f"{fence}text", *clean, fence))


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def table(head: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a table; `align` has an `l` or an `r` for each column."""
    marks = ("---" if side == "l" else "--:" for side in align)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, tuple(marks), *rows))
