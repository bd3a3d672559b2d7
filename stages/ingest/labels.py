"""What is missing in a file, and which label each spelling of one stands for.

Labels are decided on the distinct ones of all rows, of which there are few: whether a column holds numbers alone, or
two labels differ by case alone, no single row can tell.
"""

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from unicodedata import category, normalize

import polars as pl

from stages.common.display import display
from stages.common.display import listed as first_of
from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.readers.table import as_text
from stages.common.text import steps
from stages.common.text.cleaning import Step, settle

# Whole cells that programs write for no value (R and databases, pandas, spreadsheets). `NA`, `none` and `n/a` are not
# among them: people write these, and mean a label of their own (Namibia, "no emotion").
ERRORS = ("#N/A", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!")  # of spreadsheets
MISSING = ("\\N", "NULL", "null", "None", "nan", "NaN", "<NA>", "N/A", *ERRORS)
MISSING_TEXTS = ("\\N", "NULL", "nan", *ERRORS)  # "None" or "N/A" can be an answer
SPELLINGS = {
    "text": MISSING_TEXTS,
    "text_pair": MISSING_TEXTS,
    "group": MISSING,
    "split": MISSING,
    "timestamp": MISSING,
}
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# `="0012"` and `'-1`, by which programs keep Excel from taking a text for a number or a formula
TYPED = r"""^(?:="(.*)"|'([-+=@].*))$"""
REPAIRS: dict[str, Step] = {  # of texts, without those that guess
    "typed": lambda labels: labels.str.replace(TYPED, "${1}${2}"),
    "entities": steps.resolve_entities,
    "invisible": steps.remove_invisible,
    "normalise": partial(steps.normalise, form="NFC"),
    "whitespace": steps.collapse_whitespace,
}
# What people do not tell apart: small Cyrillic and Greek letters that look like Latin ones, or whose capitals do;
# dashes and quotes; what chooses the style of emoji. (The repairs leave these, and some of what nobody sees.)
ALIKE = "аa вb еe кk мm нh оo рp сc тt уy хx іi јj ѕs ԁd ԛq ԝw αa βb εe ζz ηh ιi κk μm νn οo ρp τt υy χx"
MARKS = "‐- ‑- –- —- −- ‘' ’' “' ”' \"'"
LOOK = {ord(pair[0]): pair[1] for pair in f"{ALIKE} {MARKS}".split()} | dict.fromkeys(range(0xFE00, 0xFE10))
SEEMS = (  # what is in the repr of a list or object in place of a label, and what it tells; the first one counts
    (r"['\"]choices['\"]: ", "is an answer of Label Studio"),
    (r"['\"]: -?[0-9TF]", "seem to be scores per label"),
    (r"^\[?\{", "is a JSON object"),
    (r"^\[\]", "is an empty list"),
    (r"^\[\[", "seem to be labels of parts of the text"),
    ("", "seem to be several labels"),
)
WIDTH = 60  # characters of a label in a message


def without_missing(cells: pl.Series, missing: Collection[str], spellings: Collection[str] = MISSING) -> pl.Series:
    """Return cells in which null stands for all that say that they hold nothing; of labels `label_names` decides."""
    return cells.set(cells.str.strip_chars().is_in([*spellings, *missing]), None)


def unwrapped(labels: pl.Series, listed: Collection[str], origin: str, rows: int) -> pl.Series:
    """Return labels, a list of one thing as that thing: `["pos"]` is `pos`.

    Args:
        labels: of one batch.
        listed: those that params name; they are what they say.
        origin: what messages call the file.
        rows: of the file that came before.

    Raises:
        AttuneError: with the row, if a label is another list, or an object.
    """
    entries: dict[str, str | None] = {}
    for label in labels.filter(labels.str.contains(r"^\s*[\[{]")).unique(maintain_order=True):
        value: Any = None
        for read in (json.loads, _literal):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value = read(label.strip())
                break
        if not isinstance(value, list | dict) or label.strip() in listed:
            continue
        if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], list | dict):
            raise AttuneError(
                f"{origin}, row {rows + (labels == label).arg_true()[0] + 1:,}: instead of one label there "
                f"{next(words for sign, words in SEEMS if re.search(sign, repr(value)))}: {display(label, WIDTH)}",
                "write one label into each row (of scores the highest, say), leave such rows out, or name this "
                "very text in ingest.labels",
            )
        entries[label] = as_text(value[0])
    return labels.replace([*entries], pl.Series([*entries.values()], dtype=pl.String)) if entries else labels


def _literal(text: str) -> Any:
    """Return what Python reads, with the commas that numpy leaves out: texts side by side would be joined to one."""
    if re.fullmatch(r"\[[-+.e0-9\s]+\]", text):
        return [float(number) for number in text[1:-1].split()]
    value = ast.literal_eval(re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", re.sub(r"\bnp\.\w+\(([^()]*)\)", r"\1", text)))
    return [*value] if isinstance(value, set) else value


def label_names(
    labels: Collection[str], listed: Collection[str] = (), missing: Collection[str] = ()
) -> dict[str, str | None]:
    """Return the name of each label, None for those that say that there is none.

    A name is what the repairs of texts leave: one Unicode form, no entities, nothing invisible. Where all are numbers,
    `1.0` is called `1`: a program that meets a missing whole number makes fractions of the others.

    Args:
        labels: all that the data hold, without blanks around them.
        listed: those that params name; they are what they say.
        missing: further spellings of a missing value.
    """
    absent = {*MISSING, *missing}.difference(listed)
    of_listed = {name: label for label, name in _repaired(sorted(listed)).items() if name} | {
        name: name for name in listed
    }
    names = {label: None if name in absent else name for label, name in _repaired(labels).items()}
    if all(NUMBER.fullmatch(name) for name in names.values() if name):
        names = {raw: name if name in of_listed else name and re.sub(r"\.0+$", "", name) for raw, name in names.items()}
    return {label: label if label in listed else of_listed.get(name or "", name) for label, name in names.items()}


def _repaired(labels: Collection[str]) -> dict[str, str | None]:
    repaired, _ = settle(pl.Series([*labels], dtype=pl.String), REPAIRS)
    return dict(zip(labels, repaired, strict=True))


def check_look_alikes(counts: Mapping[str, int], labels: Collection[str]) -> None:
    """Check that no two names look like one, unless params list both: they would be two classes.

    Args:
        counts: rows of each name.
        labels: the keys of `ingest.labels`; names outside are rejected, and may look like each other.

    Raises:
        AttuneError: with the names and their rows.
    """
    from ftfy import fix_encoding

    alike: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        look = normalize("NFKC", normalize("NFKC", fix_encoding(name)).casefold()).translate(LOOK)
        look = "".join(mark for mark in look if category(mark) not in ("Cc", "Cf"))  # which nobody sees
        alike.setdefault(look, []).append(name)
    several = [names for names in alike.values() if len(names) > 1]
    doubtful = [names for names in several if not labels or 0 < sum(name in labels for name in names) < len(names)]
    if doubtful:
        shown = [" and ".join(f"{_shown(name, names)} ({counts[name]:,})" for name in names[:5]) for names in doubtful]
        first = doubtful[0]
        keys = ", ".join(f"{_shown(name, first)}: {_shown(first[0], first)}" for name in first[:5])
        raise AttuneError(
            f"labels differ by case or look alone (rows in brackets): {first_of(shown, 3)}",
            f"list all labels in ingest.labels, with what each stands for: {{{keys}, …}}; or mend the file",
        )


def check_label_column(counts: Mapping[str, int], sources: Sequence[TextSource]) -> None:
    """Check that the labels are some: of texts or ids hardly two are the same, and no message should list them.

    Args:
        counts: rows of each label.
        sources: for the names of the columns.

    Raises:
        AttuneError: if most labels stand in one row alone.
    """
    rows, longest = sum(counts.values()), max(map(len, counts), default=0)
    if len(counts) <= rows / 2 or (len(counts) < 10 and longest <= WIDTH):
        return
    columns = {name: None for source in sources if (name := getattr(source.columns, "label", None))}
    named = first_of([repr(display(name, WIDTH)) for name in columns], 3)
    advice = "is it an id or a number? columns.label names the column of the labels"
    if longest > WIDTH:
        advice = "is it the text? then swap columns.text and columns.label"
    raise AttuneError(
        f"the column {named} (for label) has {len(counts):,} different values in {rows:,} rows, "
        f"up to {longest:,} characters",
        advice,
    )


def _shown(name: str, names: Collection[str]) -> str:
    """Return a name as YAML takes it, with the codes of its characters where more than case sets these names apart."""
    if name.isascii() or len({other.casefold() for other in names}) == 1:
        return f"'{display(name, WIDTH)}'"
    return '"' + display(name.encode("unicode_escape").decode(), WIDTH) + '"'
