"""Map a source's columns and labels to records, batch by batch, keeping account of every row."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from hashlib import sha256

import numpy as np
import polars as pl

from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.readers.table import Table
from stages.common.readers.tables import LINE
from stages.common.readers.values import columns_of
from stages.common.schemas import SPLITS, Rejected
from stages.common.shown import shown

STAGE = "ingest"
FIELDS = ("text", "text_pair", "label", "group", "split", "timestamp")
MOST_SHOWN = 80  # characters of a label or a name in a message


def read_records(table: Table, source: TextSource) -> Iterator[pl.DataFrame]:
    """Yield the records of a table of text; columns that are not mapped are left behind.

    Args:
        table: what is read.
        source: what `params.yaml` says of it.

    Raises:
        AttuneError: if a column is missing, there are no rows, the text column holds nothing at all, or the table is
            damaged.
    """
    lines = source.file_format == "lines"
    carried: list[str] = getattr(source.columns, "extra", [])
    mapped = {"text": LINE} if lines else source.columns.model_dump(exclude_none=True, exclude={"extra"})
    wanted = [*mapped.items(), *(("extra", column) for column in carried)]
    if table.fixed:
        _check_columns(wanted, table)
    rows = texts = 0
    for batch in table.batches(list(dict.fromkeys(column for _, column in wanted))):
        rows += batch.height
        texts += int(batch.get_column(mapped["text"]).str.contains(r"\S").sum())
        yield _to_records(batch, mapped, carried, source)
    if not rows or (lines and not texts):
        empty = "there are no rows below the header" if table.columns and not lines else "the file is empty"
        raise AttuneError(f"{table.origin}: {empty}", "put rows into it, or name another file")
    _check_columns(wanted, table)
    if not texts:
        raise AttuneError(
            f"{table.origin}: {mapped['text']!r} is empty in all {rows} rows",
            f"map text to the column that holds it; there are: {_listed(table.columns)}",
        )


def _to_records(batch: pl.DataFrame, mapped: Mapping[str, str], carried: list[str], source: TextSource) -> pl.DataFrame:
    none = pl.Series([None], dtype=pl.String).new_from_index(0, batch.height)
    fields = {field: batch.get_column(mapped[field]) if field in mapped else none for field in FIELDS}
    records = pl.DataFrame(fields).with_columns(
        source=pl.lit(source.origin),
        extra=columns_of(batch, carried).to_struct("extra").struct.json_encode() if carried else none,
    )
    label = getattr(source, "label", None)
    return records if label is None else records.with_columns(label=pl.lit(label))


def _check_columns(wanted: Iterable[tuple[str, str]], table: Table) -> None:
    known = set(table.columns)
    for field, column in wanted:
        if column not in known:
            hint = _column_hint(column, table.columns)
            raise AttuneError(f"{table.origin} has no column {column!r} (for {field})", hint)


def _column_hint(column: str, columns: list[str]) -> str:
    close = get_close_matches(column, columns, n=1) or [name for name in columns if name.lower() == column.lower()]
    return f"did you mean {close[0]!r}?" if close else f"the columns are: {_listed(columns[:20])}"


def with_text_ids(records: pl.DataFrame) -> pl.DataFrame:
    """Give each row an id made of its texts alone, so that it outlives a new label, order of rows or source."""
    # "\x1f" between the two and "\x1e" for none keep ("ab", none), ("a", "b") and ("a", "") apart.
    texts = pl.concat_str(pl.col("text").fill_null("\x1e"), pl.col("text_pair").fill_null("\x1e"), separator="\x1f")
    digest = texts.map_elements(lambda text: sha256(text.encode()).hexdigest()[:16], return_dtype=pl.String)
    return records.with_columns(id=digest)


def number_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Number rows that have one id, in the order of their other fields.

    Args:
        rows: columns id, row (their order in the data), and those of records without the texts, which are equal; but
            one that is missing and one that is "\\x1e" have one id, so `texts` tells how many are there.

    Returns:
        Columns row and number, from 1.
    """
    ordered = rows.sort("id", "texts", "label", "group", "split", "timestamp", "source", "extra", "row")
    return ordered.select("row", number=pl.int_range(1, pl.len() + 1).over("id"))


def clean_labels(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records with labels without blanks around them; one of blanks alone is none."""
    return records.with_columns(pl.col("label").str.strip_chars().replace("", None))


def check_label_map(counts: Mapping[str, int], labels: Mapping[str, str]) -> None:
    """Compare a map of labels with those of all rows.

    Raises:
        AttuneError: if not one label is in the map, or a key of the map looks like a misspelt label.
    """
    unmapped = sorted(set(counts) - set(labels))
    if len(unmapped) == len(counts):
        raise AttuneError(
            f"ingest.labels maps {', '.join(labels)}, but the data holds {_listed(unmapped[:10]) or 'no labels'}",
            "make the map's keys the labels as they stand in the data, or leave ingest.labels out",
        )
    near = {label.casefold(): label for label in unmapped}
    for raw in sorted(set(labels) - set(counts)):
        close = get_close_matches(raw.casefold(), near, n=1, cutoff=0.75)
        if close:
            raise AttuneError(
                f"ingest.labels maps {raw!r}, which no row has; "
                f"the data holds {_shown(near[close[0]])!r}, which is not mapped",
                f"did you mean {_shown(near[close[0]])!r}? If not, leave {raw!r} out",
            )


def map_labels(records: pl.DataFrame, labels: Mapping[str, str] | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the records with labels mapped, and the rejected rows: those whose label is not in the map.

    Rows with no label at all pass: `clean` rejects them as unlabelled.
    """
    if labels is None:
        return records, Rejected.empty()
    known = pl.col("label").is_null() | pl.col("label").is_in(list(labels))
    unknown = records.filter(~known)
    shown_as = {label: _shown(label) for label in unknown["label"].unique()}
    reason = pl.format(
        "label {} is not in ingest.labels", pl.col("label").replace_strict(shown_as, return_dtype=pl.String)
    )
    return (
        records.filter(known).with_columns(pl.col("label").replace(dict(labels))),
        Rejected.of(unknown, STAGE, "unmapped_label", reason),
    )


def hash_order(records: pl.DataFrame, seed: int) -> np.ndarray:
    """Return numbers [n] uint64 that a seeded hash makes of the ids: rows are drawn in their order."""
    return np.array(
        [int.from_bytes(sha256(f"{seed} {id}".encode()).digest()[:8]) for id in records["id"]], dtype=np.uint64
    )


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
