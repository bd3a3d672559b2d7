"""Cells of a label column in the spellings that people have, and the canonical text of the target that each holds."""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.tasks.base import Refused

if TYPE_CHECKING:
    import polars as pl

    from stages.common.params import IngestParams

NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
LARGEST = 1e100  # what is more stands for a missing number, and its square is none
LONGEST = 32  # characters of a number without an exponent
NO_WHOLE_LIST = r"^\s*(\[|(frozen)?set\(|array\()|^[^\[]*\]\s*$"  # one bracket of two, or a call around a list
ABRIDGED = r"['\"]\s*\.\.\."  # numpy's `...` behind an entry, for others that it leaves out
SEEMS = (  # what is in the repr of a list or object in place of a label, and what it tells; the first one counts
    (r"['\"]choices['\"]: ", "is an answer of Label Studio"),
    (r"['\"]: -?[0-9TF]", "seem to be scores per label"),
    (r"^\[?\{", "is a JSON object"),
    (r"^\[\]", "is an empty list"),
    (r"^\[\[", "seem to be labels of parts of the text"),
    ("", "seem to be several labels"),
)


def parse_label(cell: str, params: "IngestParams") -> str | None:
    """Return the one label of a cell; a list of one thing is that thing: `["pos"]` is `pos`, and `[null]` is none.

    An AttuneError if it is another list or an object, and not what params name.
    """
    from stages.common.errors import AttuneError
    from stages.common.readers.table import as_text

    if (value := _structure(cell)) is None:
        return cell
    if cell.strip() in {*(params.label_map or ()), *(source.label for source in params.sources)}:
        return cell
    if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], list | dict):
        raise AttuneError(
            f"instead of one label there {_seems(value)}: {_shown(cell)}",
            "write one label into each row (of scores the highest, say), leave such rows out, or name this "
            "very text in ingest.labels",
        )
    return as_text(value[0])


def parse_set(cell: str) -> str | None:
    """Return the canonical set of a cell: a list of JSON, Python or numpy, `a;b`, `a|b`, or an answer of Label Studio.

    `[]` is the set of no labels. Commas part labels inside of brackets alone; elsewhere they belong to a label. None:
    there are missing values alone, as in `[null]`. A cell that holds something else, or a list that was cut off, is
    Refused.
    """
    from stages.common.readers.table import as_text
    from stages.common.text.steps import unescape

    parts = re.fullmatch(r"\s*\((\s*|.*['\"].*)\)\s*", cell, re.DOTALL)  # a tuple's
    value = _structure(f"[{parts[1]}]" if parts else cell)
    if value is None:
        inner = re.fullmatch(r"\s*\[(.*)\]\s*", cell, re.DOTALL)
        if re.search(ABRIDGED if inner else NO_WHOLE_LIST, cell):
            raise Refused(f"what seems to be a list cannot be read, or was cut off: {_shown(cell)}")
        # An entity ends with what parts labels.
        entries: list[Any] | None = re.split("[;|,]" if inner else "[;|]", unescape(inner[1] if inner else cell))
    else:
        entries = value if isinstance(value, list) and not any(isinstance(part, dict) for part in value) else None
        entries = _choices(value) if entries is None else entries
    if entries is None or any(isinstance(entry, list | dict) for entry in entries):
        raise Refused(f"instead of labels there {_seems(value)}: {_shown(cell)}")
    marks = [entry for entry in entries if isinstance(entry, int | float) and entry in (0, 1)]
    if len(set(marks)) < len(marks) or any(isinstance(mark, bool) for mark in marks):
        raise Refused(f"marks of labels without their names: {_shown(cell)}; columns.labels takes a column for each")
    names = [text.strip() for entry in entries if (text := as_text(entry))]
    return canonical_set(filter(None, names)) if any(names) or not entries else None


def canonical_set(names: Iterable[str]) -> str:
    """Return names as one text: a JSON list of them in their order, each once."""
    return json.dumps(sorted(set(names)), ensure_ascii=False, separators=(",", ":"))


def set_of(label: str) -> list[str]:
    """Return the names of a canonical set."""
    names: list[str] = json.loads(label)
    return names


def renamed_set(label: str, names: Mapping[str, str | None]) -> str | None:
    """Return a canonical set with other names; None: it had some, and all of them stand for nothing."""
    old = set_of(label)
    new = [name for name in map(names.__getitem__, old) if name]
    return canonical_set(new) if new or not old else None


def parse_number(cell: str, limits: Sequence[float] | None = None) -> str:
    """Return the canonical text of a number; a point parts its decimals, and nothing its thousands.

    It is Refused if no float64 can hold it, or it is less or greater than the limits (rule `out_of_range`).
    """
    text = cell.strip()
    text = text.replace("\N{MINUS SIGN}", "-")  # spreadsheets write it
    value = float(text) if NUMBER.fullmatch(text) else float("nan")
    if isfinite(value) and abs(value) > LARGEST:
        raise Refused(f"{_shown(text)} is too large for a number that is meant")
    if not isfinite(value):
        parted = ": a point parts decimals, and nothing parts thousands" if re.fullmatch("[-+0-9., ]+", text) else ""
        raise Refused(f"{_shown(text)} is no number{parted}")
    if limits and not limits[0] <= value <= limits[1]:
        outside = f"outside of ingest.range, {canonical_number(limits[0])} to {canonical_number(limits[1])}"
        raise Refused(f"{_shown(text)} is {outside}", "out_of_range")
    return canonical_number(value)


def canonical_number(value: float) -> str:
    """Return the shortest decimal text that reads back as the same float64; `-0` is `0`."""
    value = float(value) + 0.0
    text = np.format_float_positional(value, trim="-")
    return text if len(text) <= LONGEST else repr(value)


def deciles(numbers: np.ndarray) -> list[float]:
    """Return where the deciles of numbers [n] begin, but for the first: nine edges, fewer where many are equal."""
    shares = np.arange(1, 10) / 10
    return sorted({float(edge) for edge in np.quantile(numbers, shares, method="inverted_cdf")}) if len(numbers) else []


def in_deciles(labels: "pl.Series", edges: Sequence[float] | None) -> "pl.Series":
    """Return the decile of each canonical number, in its order among them (Enum); None: by their own deciles."""
    import polars as pl

    numbers = labels.cast(pl.Float64).to_numpy()
    edges = deciles(numbers) if edges is None else edges
    texts = [canonical_number(edge) for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    names = [f"below {texts[0]}", *between, f"{texts[-1]} and more"] if texts else ["all"]
    places = np.searchsorted(edges, numbers, side="right")
    return pl.Series("decile", [names[place] for place in places.tolist()], pl.Enum(names))


def _structure(cell: str) -> list[Any] | dict[str, Any] | None:
    """Return the list or object that JSON or Python reads in a cell, if it holds one."""
    if re.match(r"\s*[\[{]", cell):
        for read in (json.loads, _literal):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value = read(cell.strip())
                return value if isinstance(value, list | dict) else None
    return None


def _literal(text: str) -> Any:
    """Return what Python reads, with the commas that numpy leaves out: texts side by side would be joined to one."""
    if re.fullmatch(r"\[[-+.e0-9\s]+\]", text):
        return [float(number) for number in text[1:-1].split()]
    value = ast.literal_eval(re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", re.sub(r"\bnp\.\w+\(([^()]*)\)", r"\1", text)))
    return [*value] if isinstance(value, set) else value


def _choices(value: Any) -> list[Any] | None:
    """Return what was chosen in Label Studio, in an answer or in the annotations of a text; None: it is neither."""
    match value:
        case {"choices": list(chosen)}:
            return chosen
        case {"choices": str(chosen)}:
            return [chosen]
        case {"value": part} | {"result": part}:
            return _choices(part)
        case list():
            parts = [_choices(part) for part in value]
            known = [part for part in parts if part is not None]
            if any("result" in part for part in value) and known[1:] != known[:-1]:
                raise Refused("its annotations in Label Studio differ")
            return [entry for part in known for entry in part] if len(known) == len(parts) else None
    return None


def _seems(value: Any) -> str:
    return next(words for sign, words in SEEMS if re.search(sign, repr(value)))


def _shown(cell: str) -> str:
    from stages.common.display import display

    return display(cell, 60)
