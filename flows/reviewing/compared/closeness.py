"""Whether the content of two files is close: the same words, and numbers as another machine may make them.

Numbers are close within a tenth of the larger, or within 0.05 (shares, scores, probabilities); whole numbers also
within as many rows as may get another prediction.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import polars as pl

from flows.reviewing.compared.file_differences import flat
from flows.reviewing.compared.value_change import value_change
from stages.common.shown import shown

CLOSE, SMALL = 0.1, 0.05
SENTENCE = f"numbers in reports within {CLOSE:.0%} or {SMALL}"
LARGEST = 1e18  # of a number that is one
NAME = 80  # characters shown of a key or a column
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
NAMED = re.compile(r"'[^']*'")  # such as the weakest slice, which may be another
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Slack:
    """What two files may differ in.

    Args:
        rows: by which whole numbers may differ.
        least: share of rows of a table of words that have to be the same.
        digests: SHA-256 of what was recorded: the record may name these where the rebuild names its own.
    """

    rows: int
    least: float
    digests: frozenset[str] = frozenset()

    def numbers(self, old: float, new: float) -> bool:
        """Whether two numbers are close."""
        if old == new:
            return True
        if not all(abs(number) < LARGEST for number in (old, new)):  # what is no number is not, either
            return False
        whole = float(old).is_integer() and float(new).is_integer()
        allowed = max(CLOSE * max(abs(old), abs(new)), self.rows if whole else SMALL)
        return abs(old - new) <= allowed

    def texts(self, old: str, new: str) -> bool:
        """Whether two texts have the same words, and numbers that are close."""
        if old == new:
            return True
        if DIGEST.fullmatch(old) and DIGEST.fullmatch(new):
            return old in self.digests
        before, after = (NAMED.sub("''", text) for text in (old, new))
        if NUMBER.sub("#", before) != NUMBER.sub("#", after):
            return False
        pairs = zip(NUMBER.findall(before), NUMBER.findall(after), strict=True)
        return all(self.numbers(float(was), float(now)) for was, now in pairs)


def json_apart(old: Any, new: Any, slack: Slack, unasked: Sequence[str] = ()) -> str:
    """Return the first key of two JSON values whose values are not close; nothing if there is none.

    Args:
        old: the recorded one.
        new: the rebuilt one.
        slack: what they may differ in.
        unasked: names of keys that are not compared.
    """
    before, after = dict(flat(old)), dict(flat(new))
    for key in dict.fromkeys([*before, *after]):
        if key and key[-1] in unasked:
            continue
        name = shown(".".join(map(str, key)), NAME) or "the whole"
        if key not in before or key not in after:
            return f"{name} is {'gone' if key in before else 'new'}"
        was, now = json.loads(before[key]), json.loads(after[key])
        if not _values(was, now, slack):
            return f"{name} {value_change(was, now)}"
    return ""


def lines_apart(old: Sequence[str], new: Sequence[str], slack: Slack) -> str:
    """Return the first line of two texts that is not close; nothing if there is none."""
    for at, (was, now) in enumerate(zip_longest(old, new, fillvalue=""), 1):
        if not slack.texts(was, now):
            return f"line {at:,}: {value_change(was, now)}"
    return ""


def table_apart(old: pl.DataFrame, new: pl.DataFrame, slack: Slack) -> str:
    """Return what of two tables is not close; nothing if all is.

    Row by row where rows have the same words, and nine rows in ten have to be close; else, as points of a curve do
    not lie where others do, the numbers of each column in order of size. Numbers are close here within a tenth of
    the column's largest.
    """
    if old.columns != new.columns:
        return "the columns are others"
    before, after = _numbers(old), _numbers(new)
    words = [name for name in old.columns if name not in before or name not in after]
    lengths = f"{old.height:,} → {new.height:,} rows"
    if old.height == new.height:
        pairs = zip(old.select(words).iter_rows(), new.select(words).iter_rows(), strict=True)
        same = sum(was == now for was, now in pairs) if words else old.height
        if same >= slack.least * old.height:
            return _apart(before, after, sort=False)
        lengths = f"only {same:,} of {old.height:,} rows have the same words"
    if len(words) == len(old.columns) or not new.height or not slack.numbers(old.height, new.height):
        return lengths
    for name in words:
        if (few := max(old[name].n_unique(), new[name].n_unique())) * 2 < new.height:  # a label, not a text
            before_of, after_of = (Counter(table[name].to_list()) for table in (old, new))
            most = max(slack.rows, CLOSE * new.height)
            if any(abs(before_of[one] - after_of[one]) > most for one in before_of | after_of):
                return f"column {shown(name, NAME)}: its {few} values come up otherwise"
    return _apart(before, after, sort=True)


def _values(was: Any, now: Any, slack: Slack) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (was, now)]
    if all(numbers):
        return slack.numbers(was, now)
    if isinstance(was, str) and isinstance(now, str):
        return slack.texts(was, now)
    return type(was) is type(now) and bool(was == now)


def _numbers(table: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns that hold numbers, [n] float64 each."""
    found = {}
    for column in table:
        if column.dtype.is_nested():
            continue
        numbers = column.cast(pl.Float64, strict=False)
        if numbers.null_count() == column.null_count() and numbers.null_count() < max(len(column), 1):
            found[column.name] = numbers.to_numpy()
    return found


def _apart(old: dict[str, np.ndarray], new: dict[str, np.ndarray], *, sort: bool) -> str:
    for name in (name for name in old if name in new):
        was, now = old[name], new[name]
        allowed = CLOSE * float(np.nanmax(np.abs(now)))
        if sort:
            places = np.linspace(0, 1, 101)
            was, now = (np.quantile(column[~np.isnan(column)], places) for column in (was, now))
            by = np.array([np.abs(was - now).mean()])
        else:
            both = np.isnan(was) & np.isnan(now)
            by = np.abs(np.where(both, 0, was) - np.where(both, 0, now))
        if np.count_nonzero(~(by <= allowed)) > CLOSE * len(by):  # a step of a curve may come a row later
            return f"column {shown(name, NAME)} is apart by {by.max():.2g}"
    return ""
