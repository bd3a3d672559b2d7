"""Map a source's columns and labels to records, batch by batch, keeping account of every row."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from hashlib import sha256

import numpy as np
import polars as pl

from stages.common.digests import seeded_hash
from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.readers.table import Table, columns_of
from stages.common.readers.tables import LINE
from stages.common.schemas import SPLITS, Rejected

STAGE = "ingest"
FIELDS = ("text", "text_pair", "label", "group", "split", "timestamp", "source", "extra")
MOST_SHOWN = 80  # characters of a label or a name in a message
SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation", "": None}


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
    extra: list[str] = getattr(source.columns, "extra", [])
    mapped = {"text": LINE} if lines else source.columns.model_dump(exclude_none=True, exclude={"extra"})
    wanted = [*mapped.items(), *(("extra", column) for column in extra)]
    if table.fixed:
        _check_columns(wanted, table)
    rows = texts = 0
    for batch in table.batches(list(dict.fromkeys(column for _, column in wanted))):
        rows += batch.height
        texts += int(batch.get_column(mapped["text"]).str.contains(r"\S").sum())
        constant = {**dict.fromkeys(FIELDS), "label": getattr(source, "label", None), "source": source.origin}
        records = pl.DataFrame({field: batch.get_column(column) for field, column in mapped.items()}).with_columns(
            pl.lit(value, pl.String).alias(field) for field, value in constant.items() if field not in mapped
        )
        if extra:
            records = records.with_columns(extra=columns_of(batch, extra).to_struct("extra").struct.json_encode())
        yield records.select(FIELDS)
    if rows and not lines:
        _check_columns(wanted, table)
    if not texts:
        what = f"{mapped['text']!r} is empty in all {rows} rows"
        if lines or not table.columns:
            what = "the file is empty"
        elif not rows:
            what = "there are no rows below the header"
        fix = "name another file, or map text to the column that holds it; there are: "
        raise AttuneError(f"{table.origin}: {what}", fix + _listed(table.columns))


def _check_columns(wanted: Iterable[tuple[str, str]], table: Table) -> None:
    known = {name.lower(): name for name in table.columns}
    for field, column in wanted:
        if column not in table.columns:
            close = get_close_matches(column.lower(), known, n=1)
            fix = f"did you mean {known[close[0]]!r}?" if close else f"the columns are: {_listed(table.columns[:20])}"
            raise AttuneError(f"{table.origin} has no column {column!r} (for {field})", fix)


def with_text_ids(records: pl.DataFrame) -> pl.DataFrame:
    """Give each row an id made of its texts alone, so that it outlives a new label, order of rows or source."""
    # "\x1f" between the two and "\x1e" for none keep ("ab", none), ("a", "b") and ("a", "") apart.
    texts = pl.concat_str(pl.col("text").fill_null("\x1e"), pl.col("text_pair").fill_null("\x1e"), separator="\x1f")
    digest = texts.map_elements(lambda text: sha256(text.encode()).hexdigest()[:16], return_dtype=pl.String)
    return records.with_columns(id=digest)


def clean_labels(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records with labels without blanks around them; one of blanks alone is none."""
    return records.with_columns(pl.col("label").str.strip_chars().replace("", None))


def check_label_map(counts: Mapping[str, int], labels: Mapping[str, str]) -> None:
    """Compare a map of labels with those of all rows.

    Raises:
        AttuneError: if not one label is in the map, or a key of the map looks like a misspelt label.
    """
    unmapped = {label.casefold(): label for label in sorted(set(counts) - set(labels))}
    if not set(counts) & set(labels):
        raise AttuneError(
            f"ingest.labels maps {', '.join(labels)}, but the data holds "
            f"{_listed([*unmapped.values()][:10]) or 'no labels'}",
            "make the map's keys the labels as they stand in the data, or leave ingest.labels out",
        )
    for raw in sorted(set(labels) - set(counts)):
        if close := get_close_matches(raw.casefold(), unmapped, n=1, cutoff=0.75):
            near = display(unmapped[close[0]], MOST_SHOWN)
            raise AttuneError(
                f"ingest.labels maps {raw!r}, which no row has; the data holds {near!r}, which is not mapped",
                f"write {near!r}, or leave {raw!r} out",
            )


def map_labels(records: pl.DataFrame, labels: Mapping[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the records with labels mapped, and the rejected rows: those whose label is not in the map.

    Rows with no label at all pass: `clean` rejects them as unlabelled.
    """
    known = pl.col("label").is_null() | pl.col("label").is_in(list(labels))
    label = pl.col("label").map_elements(lambda label: display(label, MOST_SHOWN), return_dtype=pl.String)
    reason = pl.format("label {} is not in ingest.labels", label)
    return (
        records.filter(known).with_columns(pl.col("label").replace(dict(labels))),
        Rejected.of(records.filter(~known), STAGE, "unmapped_label", reason),
    )


def hash_order(records: pl.DataFrame, seed: int) -> np.ndarray:
    """Return numbers [n] uint64 that a seeded hash makes of the ids: rows are drawn in their order."""
    return np.array([seeded_hash(seed, id) for id in records["id"]], dtype=np.uint64)


def check_splits(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records with official splits under Attune's names (`valid`, `dev` and `val` are understood).

    Raises:
        AttuneError: naming the values that are none.
    """
    records = records.with_columns(pl.col("split").str.strip_chars().str.to_lowercase().replace(SPLIT_NAMES))
    wrong = records.filter(~pl.col("split").is_in(SPLITS))
    if not wrong.is_empty():
        values = _listed(wrong["split"].unique().sort().to_list()[:5])
        raise AttuneError(
            f"{wrong['source'][0]}: the split column holds {values} in {wrong.height} rows",
            f"it may hold {', '.join(SPLITS)} or nothing; or leave columns.split out",
        )
    return records


def _listed(names: Iterable[str]) -> str:
    return ", ".join(display(name, MOST_SHOWN) for name in names)
