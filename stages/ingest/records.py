"""Map a source's columns and labels to records, keeping account of every row."""

from collections.abc import Iterable
from difflib import get_close_matches
from hashlib import sha256

import polars as pl

from stages.common.errors import AttuneError
from stages.common.params import Source, TextSource
from stages.common.schemas import SPLITS, Rejected
from stages.common.shown import shown
from stages.ingest.formats import LINE

STAGE = "ingest"
FIELDS = ("text", "text_pair", "label", "group", "split", "timestamp")
MOST_SHOWN = 80  # characters of a label or a name in a message


def to_records(table: pl.DataFrame, source: Source, file: str | None = None) -> pl.DataFrame:
    """Rename the mapped columns of a table of text; columns that are not mapped are left behind.

    Args:
        table: all columns as text.
        source: what `params.yaml` says of it.
        file: what messages call the table; the source's origin if not given.

    Raises:
        AttuneError: if a column is missing, or the text column holds nothing at all.
    """
    where = file or source.origin
    wanted = _wanted(source)
    carried = source.columns.extra
    _check_columns([*wanted.items(), *(("extra", column) for column in carried)], table, where)
    records = table.select(
        *(
            pl.col(wanted[field]).alias(field) if field in wanted else pl.lit(None, pl.String).alias(field)
            for field in FIELDS
        ),
        source=pl.lit(source.origin),
        extra=pl.struct(carried).struct.json_encode() if carried else pl.lit(None, pl.String),
    )
    if source.label is not None:
        records = records.with_columns(label=pl.lit(source.label))
    if records["text"].is_null().all():
        raise AttuneError(
            f"{where}: {wanted['text']!r} is empty in all {records.height} rows",
            f"map text to the column that holds it; there are: {_listed(table.columns)}",
        )
    return records


def to_references(table: pl.DataFrame, source: TextSource, file: str) -> pl.DataFrame:
    """Return the texts of a table, with their source.

    Raises:
        AttuneError: if the text column is missing.
    """
    wanted = _wanted(source)
    _check_columns(wanted.items(), table, file)
    return table.select(text=pl.col(wanted["text"]), source=pl.lit(source.origin))


def _wanted(source: TextSource) -> dict[str, str]:
    """Field → column."""
    if source.file_format == "lines":
        return {"text": LINE}
    return source.columns.model_dump(exclude_none=True, exclude={"extra"})


def _check_columns(wanted: Iterable[tuple[str, str]], table: pl.DataFrame, where: str) -> None:
    for field, column in wanted:
        if column not in table.columns:
            raise AttuneError(f"{where} has no column {column!r} (for {field})", _column_hint(column, table.columns))


def _column_hint(column: str, columns: list[str]) -> str:
    close = get_close_matches(column, columns, n=1) or [name for name in columns if name.lower() == column.lower()]
    if close:
        return f"did you mean {close[0]!r}?"
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        return f"the only column is {columns[0]!r}: set separator to the one the file uses"
    return f"the columns are: {_listed(columns[:20])}"


def with_ids(records: pl.DataFrame) -> pl.DataFrame:
    """Give each row an id made of its texts alone, so that it outlives a new label, order of rows or source.

    Rows with the same texts are numbered, in the order of their other fields: `9f86d081884c7d65`,
    `9f86d081884c7d65.2`, …
    """
    # "\x1f" between the two and "\x1e" for none keep ("ab", none), ("a", "b") and ("a", "") apart.
    texts = pl.concat_str(pl.col("text").fill_null("\x1e"), pl.col("text_pair").fill_null("\x1e"), separator="\x1f")
    digest = texts.map_elements(lambda text: sha256(text.encode()).hexdigest()[:16], return_dtype=pl.String)
    others = ["text", "text_pair", "label", "group", "split", "timestamp", "source", "extra"]
    numbered = records.with_columns(id=digest).with_row_index("row").sort("id", *others, "row")
    number = pl.int_range(1, pl.len() + 1).over("id")
    ids = pl.when(number == 1).then(pl.col("id")).otherwise(pl.col("id") + "." + number.cast(pl.String))
    return numbered.with_columns(id=ids).sort("row").drop("row")


def map_labels(records: pl.DataFrame, labels: dict[str, str] | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the records with labels mapped, and the rejected rows: those whose label is not in the map.

    A label of blanks alone is none. Rows with no label at all pass: `clean` rejects them as unlabelled.

    Raises:
        AttuneError: if not one label is in the map, or a key of the map looks like a misspelt label.
    """
    records = records.with_columns(pl.col("label").str.strip_chars().replace("", None))
    if labels is None:
        return records, Rejected.empty()
    known = pl.col("label").is_null() | pl.col("label").is_in(list(labels))
    kept, unknown = records.filter(known), records.filter(~known)
    if kept["label"].drop_nulls().is_empty():
        found = records["label"].drop_nulls().unique().sort().to_list()[:10]
        raise AttuneError(
            f"ingest.labels maps {', '.join(labels)}, but the data holds {_listed(found) or 'no labels'}",
            "make the map's keys the labels as they stand in the data, or leave ingest.labels out",
        )
    unmapped = unknown["label"].unique().sort().to_list()
    for raw in sorted(set(labels) - set(kept["label"].drop_nulls())):
        near = {label.casefold(): label for label in unmapped}
        close = get_close_matches(raw.casefold(), near, n=1, cutoff=0.75)
        if close:
            raise AttuneError(
                f"ingest.labels maps {raw!r}, which no row has; "
                f"the data holds {_shown(near[close[0]])!r}, which is not mapped",
                f"did you mean {_shown(near[close[0]])!r}? If not, leave {raw!r} out",
            )
    reason = pl.format(
        "label {} is not in ingest.labels",
        pl.col("label").replace_strict({label: _shown(label) for label in unmapped}, return_dtype=pl.String),
    )
    return kept.with_columns(pl.col("label").replace(labels)), Rejected.of(unknown, STAGE, "unmapped_label", reason)


def draw(records: pl.DataFrame, limit: int | None, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return at most `limit` rows, drawn by a seeded hash of their id, and the rejected rows: all others."""
    if limit is None or records.height <= limit:
        return records, Rejected.empty()
    lot = pl.col("id").map_elements(lambda id: sha256(f"{seed} {id}".encode()).hexdigest(), return_dtype=pl.String)
    drawn = pl.col("id").is_in(records.select("id", lot=lot).sort("lot").head(limit)["id"].implode())
    left = records.filter(~drawn)
    return records.filter(drawn), Rejected.of(left, STAGE, "not_drawn", f"ingest.limit keeps {limit} rows")


def check_splits(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records with official splits under Attune's names (`valid`, `dev` and `val` are understood).

    Raises:
        AttuneError: naming the values that are none.
    """
    names = (
        pl.col("split")
        .str.strip_chars()
        .str.to_lowercase()
        .replace({"valid": "validation", "val": "validation", "dev": "validation", "": None})
    )
    records = records.with_columns(split=names)
    wrong = records.filter(pl.col("split").is_not_null() & ~pl.col("split").is_in(SPLITS))
    if not wrong.is_empty():
        values = _listed(wrong["split"].unique().sort().to_list()[:5])
        raise AttuneError(
            f"{wrong['source'][0]}: the split column holds {values} in {wrong.height} rows",
            f"it may hold {', '.join(SPLITS)} or nothing; or leave columns.split out",
        )
    return records


def _shown(label: str) -> str:
    return shown(label, MOST_SHOWN)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_shown, names))
