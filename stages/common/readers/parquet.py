"""Parquet files, read page by page."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import polars as pl

from stages.common.errors import AttuneError
from stages.common.readers.streams import BATCH_BYTES, LONGEST, LONGEST_MB, ROWS, Spend


class ParquetTable:
    """A Parquet file, read with pyarrow and checked: polars ends the process over some that are damaged.

    See `tables.Table`; `stored_columns` are all columns of the file, also those that have no form as text.
    """

    fixed = True
    without_text: Mapping[str, str]  # columns that have no form as text, with what they hold
    rows: int | None
    share: Callable[[], float] | None = None

    def __init__(self, file: IO[bytes], origin: str, spend: Spend, *, texts: bool) -> None:
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

        self.origin, self._spend, self._texts = origin, spend, texts
        with self._faults_as_errors():
            self._file = ParquetFile(file)
            self._empty = self._file.schema_arrow.empty_table()
        self.stored_columns: list[str] = self._empty.column_names
        held = {field.name: _without_text(field.type) for field in self._empty.schema} if texts else {}
        self.without_text = {name: what for name, what in held.items() if what}
        self.columns = [name for name in self.stored_columns if name not in self.without_text]
        self.label_names: Mapping[str, Mapping[str, str]] = _label_names(self._empty.schema.metadata or {})
        self.rows = self._file.metadata.num_rows

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table. A batch has fewer rows than `size` if the file states that its columns are large."""
        with self._faults_as_errors():
            metadata = self._file.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
            chunks = [chunk for chunk in chunks if chunk.path_in_schema in names]
            for chunk in chunks:
                if chunk.total_uncompressed_size > LONGEST * max(chunk.num_values, 1):
                    self._too_long(chunk.path_in_schema)
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

    def _too_long(self, name: str) -> None:
        fault = f"{self.origin}: the column {name!r} has a cell of more than {LONGEST_MB} MiB"
        raise AttuneError(fault, "leave that row out, or name another column")

    def _frame(self, rows: Any, names: Sequence[str]) -> pl.DataFrame:
        frame = pl.DataFrame({name: pl.from_arrow(rows.column(name)) for name in names})
        if self._texts:
            frame = frame.with_columns(pl.selectors.float().fill_nan(None))
            frame = frame.select(pl.all().cast(pl.String).replace("", None))
            for column in frame:
                if (column.str.len_bytes().max() or 0) > LONGEST:  # type: ignore[operator]
                    self._too_long(column.name)
            self._spend(int(frame.estimated_size()))
        return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))

    @contextmanager
    def _faults_as_errors(self) -> Iterator[None]:
        from pyarrow import ArrowException  # type: ignore[import-untyped]

        try:
            yield
        except (ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise AttuneError(
                f"{self.origin}: not a readable Parquet file ({reason})", "write or copy it again"
            ) from None


def _label_names(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, str]]:
    """Return which label each number of a column stands for, where Hugging Face's datasets wrote the file."""
    try:
        columns = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"].items()
        return {
            name: {str(n): str(label) for n, label in enumerate(kind["names"])}
            for name, kind in columns
            if "names" in kind
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _without_text(kind: Any) -> str:
    """Return what a column holds that has no form as text, or nothing."""
    from pyarrow import types

    if types.is_nested(kind):
        return "structs" if types.is_struct(kind) else "maps" if types.is_map(kind) else "lists"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    return "durations" if types.is_duration(kind) else ""
