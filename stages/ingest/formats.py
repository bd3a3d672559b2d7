"""Turn a file's bytes into columns of text; strict, so that a broken file is an error and not a shorter table."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.delimited import full_rows, header_of
from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.shown import shown
from stages.ingest.expansion import SizeBudget, decompress, of_the_disk

LINE = "line"  # name of the only column of a plain text file
ROWS_AT_A_TIME = 100_000
CELL = 16  # bytes that polars needs for a text besides its characters


@dataclass(frozen=True)
class Reading:
    """How the bytes of a file are to be read, and what messages call it."""

    origin: str
    format: str
    compression: str | None = None
    encoding: str = "utf-8"
    separator: str = ","
    columns: tuple[str, ...] = ()  # the mapped ones: of a Parquet file no others are read

    @classmethod
    def of(cls, source: TextSource, origin: str | None = None) -> "Reading":
        """Return what a source's params say."""
        mapped = source.columns.model_dump(exclude_none=True)
        columns = [*mapped.pop("extra", ()), *mapped.values()]
        return cls(
            origin or source.origin,
            source.file_format,
            source.compression,
            source.encoding,
            source.separator,
            tuple(dict.fromkeys(columns)),
        )


def read_table(file: Path, source: Reading, budget: SizeBudget) -> pl.DataFrame:
    """Return every row of a file, all columns as text; empty fields are null.

    Raises:
        AttuneError: if the file is empty, damaged, wrongly encoded or ragged, with the line where one is known, or
            expands too far.
    """
    data = decompress(file, source.compression, budget) if source.compression else None
    if source.format == "parquet":
        table = _parquet(file if data is None else data, source, budget)
    else:
        text = _decode(file.read_bytes() if data is None else data, source)
        del data
        if not text.strip():
            raise AttuneError(f"{source.origin}: the file is empty", "put rows into it, or name another file")
        match source.format:
            case "csv":
                table = _separated(text, source.separator, source)
            case "tsv":
                table = _separated(text, "\t", source)
            case "jsonl":
                table = _jsonl(text, source)
            case _:
                # Only \n and \r\n end a line: str.splitlines would also cut at U+2028 and the like.
                lines = text.removesuffix("\n").split("\n")
                table = pl.DataFrame(
                    {LINE: [line.removesuffix("\r") or None for line in lines]}, schema={LINE: pl.String}
                )
    if table.is_empty():
        raise AttuneError(
            f"{source.origin}: there are no rows below the header", "put rows into it, or name another file"
        )
    return table


def _decode(data: bytes, source: Reading) -> str:
    encoding = "utf-8-sig" if source.encoding == "utf-8" else source.encoding
    try:
        text = data.decode(encoding)
        text.encode("utf-8")  # utf-7 and the like can spell halves of characters, which no file can hold
        return text
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise AttuneError(f"{source.origin}:{line}: half a character", "save the file as UTF-8") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AttuneError(
            f"{source.origin}:{line}: byte 0x{data[error.start]:02x} is not {source.encoding}",
            "say how it is encoded: under the source add encoding: cp1252 (Western Europe) or gb18030 (Chinese), say",
        ) from None


def _separated(text: str, separator: str, source: Reading) -> pl.DataFrame:
    """Read with the csv module in strict mode, which knows the line of every fault (polars pads short rows)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header = header_of(reader, source.origin, lambda mark: f"add this under the source: separator: {json.dumps(mark)}")
    rows: list[list[str | None]] = []
    packed: list[pl.DataFrame] = []  # polars holds a text in a third of the memory that Python needs
    for row in full_rows(reader, header, source.origin, "set separator to the one the file uses"):
        rows.append([field or None for field in row])
        if len(rows) == ROWS_AT_A_TIME:
            packed.append(pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row"))
            rows = []
    packed.append(pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row"))
    return pl.concat(packed)


def _jsonl(text: str, source: Reading) -> pl.DataFrame:
    rows: list[dict[str, str | None]] = []
    names: dict[str, None] = {}  # of all rows so far, in order
    packed: list[pl.DataFrame] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_each_key_once)
        except (ValueError, RecursionError) as error:
            raise AttuneError(
                f"{source.origin}:{number}: not JSON: {error}", "each line must be one JSON object"
            ) from None
        if not isinstance(row, dict):
            raise AttuneError(
                f"{source.origin}:{number}: a JSON {type(row).__name__}", "each line must be one JSON object"
            )
        rows.append({_without_surrogates(key): _as_text(value) for key, value in row.items()})
        names |= dict.fromkeys(rows[-1])
        if len(rows) >= ROWS_AT_A_TIME and names:  # a table without a column has no rows either
            packed.append(_of_rows(rows, names))
            rows = []
    return pl.concat([*packed, _of_rows(rows, names)], how="diagonal")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would keep the last of two values, in silence."""
    row = dict(pairs)
    if len({_without_surrogates(key) for key in row}) != len(pairs):
        keys = [_without_surrogates(key) for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return row


def _of_rows(rows: list[dict[str, str | None]], names: Iterable[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {name: [row.get(name) for row in rows] for name in names}, schema=dict.fromkeys(names, pl.String)
    )


def _as_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return _without_surrogates(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can spell: they are no characters, and no Parquet file could hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _parquet(file: Path | bytes, source: Reading, budget: SizeBudget) -> pl.DataFrame:
    try:
        simple = _simple_columns(file)
        # Where a mapped one is missing, all are read: the message that follows names them.
        names = list(source.columns) if source.columns and set(source.columns) <= set(simple) else simple
        packed = _unpacked_size(file, set(names))
        budget.spend(packed)
        table = pl.read_parquet(file, columns=names)
    # A panic of polars' Rust code is no Exception; damaged bytes bring one about.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and of_the_disk(error):
            raise
        reason = shown((str(error).splitlines() or [type(error).__name__])[0], 160)
        raise AttuneError(
            f"{source.origin}: not a readable Parquet file ({reason})", "write or copy it again"
        ) from None
    # "" is null here as in every other format
    table = table.select(pl.col(name).cast(pl.String).replace("", None) for name in names)
    texts = sum(table.select(pl.all().str.len_bytes().cast(pl.Int64).sum()).row(0)) if names else 0
    budget.spend(max(0, texts - packed))  # a text that many rows share is stored once
    return table


def _simple_columns(file: Path | bytes) -> list[str]:
    """Return the names of the columns that can be given as text."""
    without_text = (pl.Binary, pl.Object, pl.Duration)  # polars turns none of these into text
    kinds = pl.read_parquet_schema(file)
    return [name for name, kind in kinds.items() if not kind.is_nested() and kind not in without_text]


def _unpacked_size(file: Path | bytes, names: set[str]) -> int:
    """Return the bytes that columns need in memory, as the file's own account of itself says, before any is read."""
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    with ParquetFile(io.BytesIO(file) if isinstance(file, bytes) else file) as opened:
        about = opened.metadata
        size = about.num_rows * len(names) * CELL
        for group in map(about.row_group, range(about.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            size += sum(column.total_uncompressed_size for column in columns if column.path_in_schema in names)
    return size
