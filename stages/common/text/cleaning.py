"""What is done to texts before a model reads them: repairs in small steps, the same for training, serving, prediction.

`clean` applies the steps to the data and records which (`data/clean/text_cleaning.json`); the record travels with the
model. Filters are no part of it: a text that training would have rejected still gets an answer. This file and what it
imports of Attune go into the registry with the model, so nothing here knows `params.yaml`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal
from unicodedata import is_normalized

import numpy as np
import polars as pl

from stages.common.text import steps as text_steps
from stages.common.text.pii import mask

Step = Callable[[pl.Series], pl.Series]  # texts to as many texts, null where nothing is left
FILE = "text_cleaning.json"
PASSES = 10  # real texts settle in two or three
BATCH = 100_000  # texts; what a step makes on its way is gone before the next batch
CURLY = str.maketrans("\u02bc\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f", "'" * 5 + '"' * 4)


@dataclass(frozen=True)
class TextCleaning:
    """Which steps are on; the fields are those of the same names in the `clean` section of `params.yaml`."""

    normalization: Literal["NFC", "NFKC"] = "NFC"
    strip_html: bool = True
    strip_markdown: bool = False
    simplify_chinese: bool = False
    pii: tuple[str, ...] = ()
    phone_region: str | None = None

    @classmethod
    def read(cls, folder: Path) -> "TextCleaning | None":
        """Read the record in a folder, None where there is none; a ValueError if it says what it should not."""
        path = folder / FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**record, "pii": tuple(record["pii"])})
        except FileNotFoundError:
            return None
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is not what it should be: {error}") from None

    def as_text(self) -> str:
        """Return the record's content."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def packages(self) -> list[str]:
        """What has to be installed for the steps that are on."""
        optional = {"markdown-it-py": self.strip_markdown, "opencc": self.simplify_chinese}
        optional |= {"phonenumberslite": "phone" in self.pii}
        return ["polars", "ftfy", *(name for name, needed in optional.items() if needed)]

    def steps(self) -> dict[str, Step]:
        """Return the steps that are on by name, in the order that they are applied.

        Entities come before everything that looks for marks, so that `&lt;br&gt;` is a tag like any other; Markdown
        comes before tags, because `<https://example.org>` is a link there, and before white space, because it needs the
        lines; personal data come last, when numbers are no longer cut up by tags, odd blanks or zero-width characters.
        """
        in_order: list[tuple[str, Step, bool]] = [
            ("entities", text_steps.resolve_entities, True),
            ("encoding", text_steps.repair_encoding, True),
            ("invisible", text_steps.remove_invisible, True),
            ("markdown", text_steps.strip_markdown, self.strip_markdown),
            ("html", text_steps.strip_tags, self.strip_html),
            ("chinese", text_steps.simplify_chinese, self.simplify_chinese),
            ("normalise", partial(text_steps.normalise, form=self.normalization), True),
            ("whitespace", text_steps.collapse_whitespace, True),
            ("pii", partial(mask, kinds=self.pii, phone_region=self.phone_region), bool(self.pii)),
        ]
        return {name: step for name, step, enabled in in_order if enabled}

    def column(self, texts: pl.Series) -> tuple[pl.Series, Counter[str]]:
        """Return cleaned texts, null where nothing is left, and how many texts each step changed."""
        chosen, parts = self.steps(), [texts.clear()]
        changed = Counter(dict.fromkeys(chosen, 0))
        for start in range(0, len(texts), BATCH):
            settled, counts = settle(texts.slice(start, BATCH), chosen)
            changed.update(counts)
            parts.append(settled)
        return pl.concat(parts, rechunk=False), changed

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Return a few cleaned texts, empty where nothing is left.

        The same as `column`, without the milliseconds that Polars takes for a single text which needs no repair.
        """
        quick = [self._quick(text) for text in texts]
        others = [text for text, done in zip(texts, quick, strict=True) if done is None]
        slow = iter(self.column(pl.Series(others))[0]) if others else iter(())
        return [next(slow) or "" if done is None else done for done in quick]

    def _quick(self, text: str) -> str | None:
        """Return a text as all steps leave it, where that is plain to see: only curly quotes may have to change."""
        if self._needs_steps.search(text):
            return None
        if text.isascii():
            return text
        from ftfy.badness import BADNESS_RE

        if self.simplify_chinese or BADNESS_RE.search(text) or not is_normalized(self.normalization, text):
            return None
        return text.translate(CURLY)

    @cached_property
    def _needs_steps(self) -> re.Pattern[str]:
        """What any step looks for, but for curly quotes and Unicode forms; it may find more than they do."""
        patterns = [r"^$|^ | $|  |[^\S ]|&[#A-Za-z]|<[A-Za-z/!]", text_steps.INVISIBLE, text_steps.odd_characters()]
        if self.strip_markdown:
            patterns.append(r"[*_`~\\\]<]")
        if self.pii:
            patterns.append("[@＠\\d]")
        return re.compile("|".join(patterns))


def settle(texts: pl.Series, chosen: dict[str, Step]) -> tuple[pl.Series, dict[str, int]]:
    """Apply all steps again and again until no text changes any more, so that cleaning twice is cleaning once.

    What one step leaves can be work for an earlier one (`&<!-- -->amp;`, `<<b>b>`); only texts that changed are
    looked at again. A text that ten passes do not settle was built to do harm, and becomes null like an empty one. With
    the texts, in the same order, comes how many of them each step changed.
    """
    result, current, index = texts.clone(), texts, np.arange(len(texts))
    touched = {name: np.zeros(len(texts), dtype=bool) for name in chosen}
    for _ in range(PASSES):
        previous = current
        for name, step in chosen.items():
            after = step(current)
            touched[name][index[current.ne_missing(after).to_numpy()]] = True
            current = after
        moved = previous.ne_missing(current)
        index, current = index[moved.to_numpy()], current.filter(moved)
        if not len(index):
            break
        result = result.scatter(index, current)
    else:
        result = result.scatter(index, None)
    return result, {name: int(rows.sum()) for name, rows in touched.items()}
