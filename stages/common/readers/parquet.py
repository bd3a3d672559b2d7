"""Parquet files, read page by page."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import IO, Any

import polars as pl

from stages.common.errors import AttuneError
from stages.common.readers.streams import BATCH_BYTES, LONGEST, LONGEST_MB, ROWS, Spend, damage_as_errors
from stages.common.readers.table import Table, as_text, check_unique

WITHOUT_TEXT = {"list": "lists", "struct": "structs", "map": "maps", "binary": "bytes", "duration": "durations"}


class ParquetTable(Table):
    """A Parquet file, read with pyarrow and checked: polars ends the process over some that are damaged.

    A column without a form as text is JSON, if asked for. An AttuneError if it is damaged, or a column is there twice.
    """

    def __init__(self, file: IO[bytes], origin: str, spend: Spend, *, texts: bool) -> None:
        from pyarrow import ArrowException  # type: ignore[import-untyped]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

        self.origin, self._spend, self._texts = origin, spend, texts
        kinds = (ArrowException, pl.exceptions.PolarsError, OSError, ValueError)
        self._damage_as_errors = partial(damage_as_errors, origin, "not a readable Parquet file", kinds)
        with self._damage_as_errors():
            self._file = ParquetFile(file)
            self._empty = self._file.schema_arrow.empty_table()
        self.columns = self._empty.column_names
        check_unique(self.columns, origin)
        self.label_names = _label_names(self._empty.schema.metadata or {})
        self.rows = self._file.metadata.num_rows
        if texts:
            held = {
                field.name: re.sub("large_|fixed_size_|[^a-z_].*", "", str(field.type)) for field in self._empty.schema
            }
            self.without_text = {name: WITHOUT_TEXT[kind] for name, kind in held.items() if kind in WITHOUT_TEXT}
            self.columns = [name for name in self.columns if name not in self.without_text]

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table. A batch has fewer rows than `size` if the file states that its columns are large."""
        with self._damage_as_errors():
            metadata = self._file.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
            chunks = [chunk for chunk in chunks if chunk.path_in_schema in names]
            for chunk in chunks:
                self._check_cell(chunk.path_in_schema, chunk.total_uncompressed_size // max(chunk.num_values, 1))
            stated = sum(chunk.total_uncompressed_size for chunk in chunks)
            size = max(1, min(size, BATCH_BYTES * metadata.num_rows // max(stated, 1)))
            if not self.rows:
                yield self._frame(self._empty, names)
            rows_read = 0
            for batch in self._file.iter_batches(size, columns=list(names), use_threads=False):
                batch.validate(full=True)
                yield self._frame(batch, names)
                rows_read += batch.num_rows
            if rows_read != self.rows:
                raise ValueError(f"{rows_read:,} of {self.rows:,} rows are there")

    def _check_cell(self, name: str, size: int) -> None:
        if size > LONGEST:
            fault = f"{self.origin}: the column {name!r} has a cell of more than {LONGEST_MB} MiB"
            raise AttuneError(fault, "leave that row out, or name another column")

    def _frame(self, rows: Any, names: Sequence[str]) -> pl.DataFrame:
        columns: dict[str, Any] = {name: rows.column(name) for name in names}
        for name in self.without_text.keys() & columns:
            columns[name] = pl.Series(map(as_text, columns[name].to_pylist()), dtype=pl.String).to_arrow()
        frame = pl.DataFrame({name: pl.from_arrow(column) for name, column in columns.items()})
        if self._texts:
            frame = frame.with_columns(pl.selectors.float().fill_nan(None))
            frame = frame.select(pl.all().cast(pl.String).replace("", None))
            for column in frame:
                self._check_cell(column.name, int(column.str.len_bytes().max() or 0))  # type: ignore[arg-type]
            self._spend(int(frame.estimated_size()))
        return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))


def _label_names(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, str]]:
    """Return which label each number of a column stands for, where Hugging Face's datasets wrote the file."""
    try:
        columns = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"].items()
        named = {name: kind["names"] for name, kind in columns if "names" in kind}
        return {name: {str(n): str(label) for n, label in enumerate(labels)} for name, labels in named.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
