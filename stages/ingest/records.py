"""Map a source's columns and labels to records, batch by batch, keeping account of every row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import polars as pl

from stages.common.display import display
from stages.common.display import listed as first_of
from stages.common.errors import AttuneError
from stages.common.params import IngestParams, TextSource
from stages.common.params.sources import as_in_files
from stages.common.readers.table import LINE, Table
from stages.common.readers.tables import COLUMNS
from stages.common.schemas import SPLITS
from stages.ingest.labels import SPELLINGS, with_marks, with_targets, without_fractions, without_missing
from stages.tasks.base import Task

FIELDS = ("text", "text_pair", "label", "group", "split", "timestamp", "source", "extra")
WIDTH = 60  # characters of a label or a name in a message
MATCHES = ""  # whether a line matches its source's pattern; no group has this name
OF_SHAPE = "\0"  # before the names of columns that are made of a conversation's
SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation", "": None}


def read_records(table: Table, source: TextSource, task: Task, params: IngestParams) -> Iterator[pl.DataFrame]:
    """Yield the records of a table of text; columns that are not mapped are left behind.

    They have FIELDS, and `left_out`: why a row is not read, with the `rule` that says so; null for the others. An
    AttuneError if a column is missing, there are no rows, the text column holds nothing at all, `where` or `pattern`
    leaves nothing of a file, the task cannot be learnt from such labels, an official split is none, or the table is
    damaged.
    """
    lines, missing, pattern = source.file_format == "lines", params.missing, source.pattern
    shaped, optional = _shaped(table, source, task)
    mapped = _mapping(source)
    extra = [*dict.fromkeys(getattr(source.columns, "extra", []))]
    marks: list[str] = getattr(source.columns, "labels", [])
    where: dict[str, Any] = getattr(source, "where", {})
    further = {"labels": marks, "extra": extra, "where": where, "label": [*shaped.values()]}
    wanted = [*mapped.items(), *((field, column) for field, columns in further.items() for column in columns)]
    mapped |= {field: f"{OF_SHAPE}{field}" for field in ("text", "label") if shaped}
    given = {name: getattr(source, name, None) for name in ("label", "split")}
    constant = {**dict.fromkeys(FIELDS), **given, "source": source.origin, "group": table.group}
    if table.fixed and not pattern:
        _check_columns(wanted, table)
    names: dict[str, str | None] = dict(table.label_names.get(mapped.get("label", ""), {}))
    if names:  # -1 is what hidden test labels are
        names = names | {"-1": None} if names.keys().isdisjoint(params.label_map or ()) else {}
    rows = texts = kept = matched = 0
    for raw in table.batches([LINE] if pattern else list(dict.fromkeys(column for _, column in wanted))):
        batch = _groups(raw[LINE], pattern, mapped["text"]) if pattern else raw
        matched += int(batch[MATCHES].sum()) if pattern else batch.height
        records = _records(_with_cells(batch, shaped, source, rows), mapped, extra, constant, missing)
        records = records.with_columns(left_out=pl.coalesce(pl.lit(None, pl.String), *_left_out(batch, where, pattern)))
        records = official_splits(records, params.split_names)
        kept += records["left_out"].null_count()
        records = records.with_columns(rule=pl.when(pl.col("left_out").is_not_null()).then(pl.lit("left_out")))
        if marks:
            records = with_marks(records, batch, marks)
        records = with_targets(records, names, task, params, table.origin, rows)
        if shaped:
            labels = records.select(pl.when(pl.col("left_out").is_null()).then("label")).to_series()
            records = records.with_columns(text=pl.coalesce(task.texts(labels), "text"))
        rows += batch.height
        texts += int(records["text"].str.contains(r"\S").sum())
        yield records
    if rows and not lines:
        _check_columns([pair for pair in wanted if pair[1] not in optional], table)
    if rows and not matched:
        first = display(batch[mapped["text"]][0] or "", WIDTH)
        raise AttuneError(f"{table.origin}: pattern fits none of the {rows:,} lines", f"mend it: a line is {first!r}")
    if rows and not kept and where and not source.inside:  # of several files of an archive one may hold none
        held = [f"{column} holds {_listed(batch[column].unique().drop_nulls().sort().head(5))}" for column in where]
        raise AttuneError(f"{table.origin}: where leaves out all {rows:,} rows", f"mend it: {'; '.join(held)}")
    if not texts:
        empty = "the file is empty" if lines or not table.columns else "there are no rows below the header"
        what = f"{shaped.get('answer', mapped['text'])!r} is empty in all {rows} rows" if rows else empty
        fix = "name another file, or map text to the column that holds it; there are: "
        raise AttuneError(f"{table.origin}: {what}", fix + _listed(table.columns))


def _records(
    batch: pl.DataFrame,
    mapped: Mapping[str, str],
    extra: Sequence[str],
    constant: Mapping[str, str | None],
    missing: Sequence[str],
) -> pl.DataFrame:
    """Return the rows of a batch with FIELDS, from their columns or, those that have none, from what is constant."""
    records = pl.DataFrame(
        {field: batch[column] for field, column in mapped.items()}, height=batch.height
    ).with_columns(pl.lit(value, pl.String).alias(field) for field, value in constant.items() if field not in mapped)
    if extra:
        struct = pl.DataFrame([without_missing(batch[column], missing) for column in extra]).to_struct()
        records = records.with_columns(extra=struct.struct.json_encode())
    records = records.select(FIELDS)
    return records.with_columns(
        without_missing(records[field], missing, spellings) for field, spellings in SPELLINGS.items()
    )


def _shaped(table: Table, source: TextSource, task: Task) -> tuple[dict[str, str], set[str]]:
    """Return the columns of a source's conversations by what they hold, and which of these may be missing."""
    if not source.shape:
        return {}, set()
    parts, needed = task.columns_of(source.shape, source.columns.text, getattr(source.columns, "label", None))
    known = {*table.columns, *table.without_text} if table.fixed else {*parts.values()}
    shaped = {part: column for part, column in parts.items() if column in known or part in needed}
    return shaped, {column for part, column in shaped.items() if part not in needed}


def _with_cells(batch: pl.DataFrame, shaped: Mapping[str, str], source: TextSource, rows: int) -> pl.DataFrame:
    """Return a batch with what the task is to read as the label of each conversation, JSON, and a text until then.

    The JSON has the number of the row, of which so many came before: what is wrong has to be found.
    """
    if not shaped:
        return batch
    cells = batch.select(pl.col(column).alias(part) for part, column in shaped.items())
    numbered = cells.with_columns(shape=pl.lit(source.shape), row=pl.int_range(rows + 1, rows + 1 + pl.len()))
    label = numbered.to_struct().struct.json_encode()
    return batch.with_columns(cells["answer"].alias(f"{OF_SHAPE}text"), label.alias(f"{OF_SHAPE}label"))


def _mapping(source: TextSource) -> dict[str, str]:
    """Return the columns of fields that have one each."""
    if source.bare:
        bare = COLUMNS[source.file_format]
        return {field: column for field, column in bare.items() if hasattr(source.columns, field)}
    several = {"extra", "labels", *(("text", "label") if source.shape else ())}
    return source.columns.model_dump(exclude_none=True, exclude=several)


def _groups(lines: pl.Series, pattern: str, text: str) -> pl.DataFrame:
    """Return the groups of each line, empty ones as null, and whether it matches; the text of others is the line."""
    whole = f"^(?:{pattern})$"
    matches = lines.str.contains(whole).fill_null(value=False)
    groups = lines.str.extract_groups(whole).struct.unnest().with_columns(pl.all().replace("", None))
    return groups.with_columns(pl.when(matches).then(text).otherwise(lines).alias(text), matches.alias(MATCHES))


def _left_out(rows: pl.DataFrame, where: Mapping[str, Any], pattern: str | None) -> Iterator[pl.Expr]:
    if pattern:
        yield pl.when(~rows[MATCHES]).then(pl.lit("pattern: the line does not match"))
    for column, given in where.items():
        values = given if isinstance(given, list) else [given]
        texts = pl.Series([text for value in values for text in as_in_files(value)], dtype=pl.String)
        fits = without_fractions(rows[column].fill_null("")).is_in(without_fractions(texts).to_list())
        yield pl.when(~fits).then(
            pl.lit(f"where: {column} is not {' or '.join(str(value) or 'empty' for value in values)}")
        )


def _check_columns(wanted: Iterable[tuple[str, str]], table: Table) -> None:
    lowered = {name.lower(): name for name in table.columns}
    for field, column in wanted:
        what = table.without_text.get(column)
        if what in ("lists", "structs") and field == "label":
            continue  # comes as JSON, of which the task decides
        if what:
            what = f"{table.origin}: the column {column!r} (for {field}) is there, but holds {what}"
            raise AttuneError(what, "write its values as text, or name another column")
        if column not in table.columns:
            close = get_close_matches(column.lower(), lowered, n=1)
            fix = (
                f"did you mean {display(lowered[close[0]], WIDTH)!r}?"
                if close
                else f"the columns are: {_listed(table.columns)}"
            )
            raise AttuneError(f"{table.origin} has no column {column!r} (for {field})", fix)


def official_splits(records: pl.DataFrame, names: Mapping[Any, str]) -> pl.DataFrame:
    """Return the records with official splits under Attune's names; rows of one that is dropped are left out.

    An AttuneError names the values that are none.
    """
    named = SPLIT_NAMES | {str(raw).strip().lower(): name for raw, name in names.items()}
    raw = without_fractions(records["split"]).str.to_lowercase()
    dropped = pl.lit(raw).is_in([raw for raw, name in named.items() if name == "drop"])
    records = records.with_columns(
        split=pl.when(~dropped).then(raw.replace(named)),
        left_out=pl.coalesce("left_out", pl.when(dropped).then(pl.format("ingest.split_names drops {}", raw))),
    )
    wrong = records.filter(~pl.col("split").is_in(SPLITS), pl.col("left_out").is_null())
    if not wrong.is_empty():
        values = wrong["split"].unique().sort().to_list()
        raise AttuneError(
            f"{wrong['source'][0]}: the split column holds {_listed(values)} in {wrong.height} rows",
            f"say what each stands for, such as ingest.split_names: {{{display(values[0], WIDTH)}: train}} "
            f"({', '.join(SPLITS)} or drop); or leave columns.split out",
        )
    return records


def check_label_map(counts: Mapping[str, int], labels: Mapping[str, str]) -> None:
    """Compare a map of labels with all; an AttuneError if not one is in it, or a key looks like one misspelt."""
    unmapped = {label.casefold(): label for label in sorted(set(counts) - set(labels))}
    if not set(counts) & set(labels):
        what = f"ingest.labels maps {', '.join(labels)}, but the data holds {_listed(unmapped.values()) or 'no labels'}"
        raise AttuneError(what, "make the map's keys the labels as they stand in the data, or leave ingest.labels out")
    for raw in sorted(set(labels) - set(counts)):
        if close := get_close_matches(raw.casefold(), unmapped, n=1, cutoff=0.75):
            near = display(unmapped[close[0]], WIDTH)
            what = f"ingest.labels maps {raw!r}, which no row has; the data holds {near!r}, which is not mapped"
            raise AttuneError(what, f"write {near!r}, or leave {raw!r} out")


def _listed(names: Iterable[str]) -> str:
    return first_of([display(name, WIDTH) for name in names], 10)
