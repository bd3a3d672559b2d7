"""What is missing in a file, what its cells hold, and which name each spelling of one stands for.

Names are decided on the distinct ones of all rows, of which there are few: whether a column holds numbers alone, or two
names differ by case alone, no single row can tell.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from unicodedata import category, normalize

import polars as pl

from stages.common.display import display
from stages.common.display import listed as first_of
from stages.common.errors import AttuneError
from stages.common.params import IngestParams, TextSource
from stages.common.text import steps
from stages.common.text.cleaning import Step, settle
from stages.tasks.base import Refused, Task

# Whole cells that programs write for no value (R and databases, pandas, spreadsheets). `NA`, `none` and `n/a` are not
# among them: people write these, and mean a label of their own (Namibia, "no emotion").
ERRORS = ("#N/A", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!")  # of spreadsheets
MISSING = ("\\N", "NULL", "null", "None", "nan", "NaN", "<NA>", "N/A", *ERRORS)
MISSING_TEXTS = ("\\N", "NULL", "nan", *ERRORS)  # "None" or "N/A" can be an answer
SPELLINGS: dict[str, tuple[str, ...]] = dict.fromkeys(("text", "text_pair"), MISSING_TEXTS)
SPELLINGS |= dict.fromkeys(("group", "split", "timestamp"), MISSING)
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
WIDTH = 60  # characters of a label in a message
YES, NO = ("1", "true", "yes", "x"), ("0", "false", "no", "")  # in a column of marks, one for each label


def without_missing(cells: pl.Series, missing: Collection[str], spellings: Collection[str] = MISSING) -> pl.Series:
    """Return cells in which null stands for all that say that they hold nothing; of labels `label_names` decides."""
    return cells.set(cells.str.strip_chars().is_in([*spellings, *missing]), None)


def with_targets(
    records: pl.DataFrame,
    names: Mapping[str, str | None],
    task: Task,
    params: IngestParams,
    origin: str,
    rows: int,
) -> pl.DataFrame:
    """Return a batch of records with what the task reads in each label, or why a row is left out.

    The task reads each distinct cell once; only rows that are not left out are looked at. `names` are what numbers of
    the file stand for, `rows` how many came before. An AttuneError, with the row, if the task takes the whole column
    for the wrong one.
    """
    cells = records.select(pl.when(pl.col("left_out").is_null()).then("label")).to_series()
    absent = {*MISSING, *params.missing}.difference(params.label_map or ())
    read: dict[str, list[str | None]] = {"cell": [], "target": [], "why": [], "reason": []}
    for cell in cells.filter(cells.str.contains(r"\S")).unique(maintain_order=True):
        target = rule = reason = None
        try:
            target = task.parse_target(cell, params)
        except Refused as refusal:
            rule, reason = refusal.rule, str(refusal)
        except AttuneError as error:
            row = f"{origin}, row {rows + (cells == cell).arg_true()[0] + 1:,}"
            raise AttuneError(f"{row}: {error.what}", error.fix) from None
        held = task.names(target) if target else []
        if not held and cell.strip() in absent:  # of names `label_names` decides
            target = rule = reason = None
        if target and held and names:
            target = task.renamed(target, {name: names.get(name, name) for name in held})
        for column, value in zip(read.values(), (cell, target, rule, reason), strict=True):
            column.append(value)
    known = pl.DataFrame(read, schema=dict.fromkeys(read, pl.String))
    known = cells.to_frame("cell").join(known, on="cell", how="left", maintain_order="left")
    read_here = pl.col("left_out").is_null() & known["why"].is_null()
    return records.with_columns(
        label=pl.when(read_here).then(known["target"]).otherwise("label"),
        rule=pl.coalesce("rule", known["why"]),
        left_out=pl.coalesce("left_out", known["reason"]),
    )


def with_marks(records: pl.DataFrame, rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return a batch of records with the labels that are marked in its rows, as a JSON list; each has its own column.

    A row with a cell that is no mark is left out.
    """
    marks = [without_fractions(rows[name]).str.to_lowercase().fill_null("") for name in names]
    reasons = pl.Series([None], dtype=pl.String).new_from_index(0, rows.height)
    for name, mark in zip(names, marks, strict=True):
        wrong = (~mark.is_in([*YES, *NO])).arg_true()
        shown = [display(cell, WIDTH) for cell in rows[name].gather(wrong)]
        column = f"the column {display(name, WIDTH)} of a label holds"
        reasons = reasons.scatter(wrong, [f"{column} {cell}, which is neither yes (1) nor no (0)" for cell in shown])
    quoted = [json.dumps(name, ensure_ascii=False) for name in names]
    chosen = [pl.when(mark.is_in(YES)).then(pl.lit(name)) for name, mark in zip(quoted, marks, strict=True)]
    joined = pl.concat_str(chosen, separator=",", ignore_nulls=True)
    rule = pl.when(reasons.is_not_null()).then(pl.lit("bad_target"))
    return records.with_columns(
        label=rows.select(pl.format("[{}]", joined)).to_series(),
        rule=pl.coalesce("rule", rule),
        left_out=pl.coalesce("left_out", reasons),
    )


def without_fractions(cells: pl.Series) -> pl.Series:
    """Return cells without blanks around them; whole numbers, which a missing one makes fractions, as they were."""
    return cells.str.strip_chars().str.replace(r"^(-?[0-9]+)\.0+$", "${1}")


def label_names(
    labels: Collection[str], listed: Collection[str] = (), missing: Collection[str] = ()
) -> dict[str, str | None]:
    """Return the name of each label, None for those that say that there is none.

    A name is what the repairs of texts leave: one Unicode form, no entities, nothing invisible. Where all are numbers,
    `1.0` is called `1`: a program that meets a missing whole number makes fractions of the others.

    The labels are all that the data hold, without blanks around them; those that params list are what they say.
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

    Names outside of `labels`, the keys of `ingest.labels`, are rejected, and may look like each other. An AttuneError
    has the names and their rows.
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
        what = f"labels differ by case or look alone (rows in brackets): {first_of(shown, 3)}"
        fix = f"list all labels in ingest.labels, with what each stands for: {{{keys}, …}}; or mend the file"
        raise AttuneError(what, fix)


def check_label_column(counts: Mapping[str, int], sources: Sequence[TextSource]) -> None:
    """Check that the labels are some, and no texts or ids: an AttuneError if most stand in one row alone."""
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
