"""Cells and tables of the comment: foreign texts as code, masked, and never more rows than there is room for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from flows.reviewing.pages.wording import counted, masked
from flows.told.markdown import SENTENCE, code, plain, said, table
from stages.common.redact import redacted
from stages.common.shown import READ, Mask, shown

T = TypeVar("T")
CELL = 6  # sentences in one cell
TEXT, LABEL = 160, 40  # characters of a text, of a label


@dataclass(frozen=True)
class Parts:
    """How much is shown, and what is masked.

    Args:
        listed: rows of a table.
        mask: replaces personal data in what stems from the data.
    """

    listed: int
    mask: Mask | None = None

    def name(self, text: str | None, most: int = LABEL) -> str:
        """Return a label, a slice or a path as code."""
        return "–" if text is None else code(self._masked(text, most), most)

    def exact(self, text: str | None, most: int = 80) -> str:
        """Return what is no data, such as a setting, a path or a digest, as code."""
        return "–" if text is None else code(text[: most * READ], most)

    def text(self, text: str) -> str:
        """Return a text of the data as code."""
        return self.name(text, TEXT)

    def said(self, sentence: str) -> str:
        """Return a sentence with its foreign words as code."""
        return said(masked(plain(sentence[: SENTENCE * READ], SENTENCE), self.mask))

    def table(
        self, head: Sequence[str], align: str, items: Sequence[T], row: Callable[[T], Sequence[str]], of: str = "row"
    ) -> str:
        """Return a table with a row for as many items as are shown, and how many more there are."""
        if not items:
            return ""
        if not self.listed:
            return f"{counted(len(items), of)}: too many for this comment."
        more = len(items) - self.listed
        rest = f"\n\n… and {counted(more, f'more {of}')}." if more > 0 else ""
        return table(head, align, map(row, items[: self.listed])) + rest

    def lines(self, sentences: Sequence[str]) -> str:
        """Return a list of as many sentences as are shown, and how many more there are."""
        more = len(sentences) - self.listed
        told = [f"- {self.said(one)}" for one in sentences[: self.listed]]
        return "\n".join([*told, *([f"- … and {more:,} more"] if more > 0 else [])])

    def cell(self, sentences: Sequence[str]) -> str:
        """Return a few sentences under each other in one cell of a table."""
        more = len(sentences) - CELL
        return "<br>".join([*map(self.said, sentences[:CELL]), *([f"{more:,} more"] if more > 0 else [])]) or "–"

    def _masked(self, text: str, most: int) -> str:
        return shown(redacted(text[: most * READ]), most, self.mask)
