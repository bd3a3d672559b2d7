"""What is missing in a file, and which label each spelling of one stands for.

Labels are decided on the distinct ones of all rows, of which there are few: whether a column holds numbers alone, or
two labels differ by case alone, no single row can tell.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping

import polars as pl

# Whole cells that programs write for no value (R and databases, pandas, spreadsheets). `NA`, `none` and `n/a` are not
# among them: people write these, and mean a label of their own (Namibia, "no emotion").
MISSING = ("\\N", "NULL", "null", "None", "nan", "NaN", "<NA>", "#N/A", "N/A")
MISSING_TEXTS = ("\\N", "NULL", "#N/A", "nan")  # "None" or "N/A" can be an answer
FIELDS = {"text": MISSING_TEXTS, "text_pair": MISSING_TEXTS, "group": MISSING, "split": MISSING, "timestamp": MISSING}
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def without_missing(records: pl.DataFrame, missing: Collection[str]) -> pl.DataFrame:
    """Return records in which cells that say that they hold nothing are null; of labels `label_names` decides."""
    return records.with_columns(
        pl.when(pl.col(field).str.strip_chars().is_in([*spellings, *missing])).then(None).otherwise(field).alias(field)
        for field, spellings in FIELDS.items()
    )


def label_names(
    labels: Collection[str], listed: Collection[str] = (), missing: Collection[str] = ()
) -> dict[str, str | None]:
    """Return the name of each label, None for those that say that there is none.

    Where all are numbers, `1.0` is called `1`: a program that meets a missing whole number makes the others fractions.

    Args:
        labels: all that the data hold, without blanks around them.
        listed: those that params name; they are what they say.
        missing: further spellings of a missing value.
    """
    absent = {*MISSING, *missing}.difference(listed)
    names = {label: None if label in absent else label for label in labels}
    if all(NUMBER.fullmatch(name) for name in names.values() if name):
        names = {label: name if not name or name in listed else _whole(name) for label, name in names.items()}
    return names


def _whole(number: str) -> str:
    whole, _, fraction = number.partition(".")
    return number if fraction.strip("0") else whole


def count_names(counts: Mapping[str, int], names: Mapping[str, str | None]) -> tuple[Counter[str], dict[str, int]]:
    """Return how often there is each name, and how often each spelling that means that there is none."""
    named, absent = Counter[str](), dict[str, int]()
    for label, count in sorted(counts.items()):
        if (name := names[label]) is None:
            absent[label] = count
        else:
            named[name] += count
    return named, absent
