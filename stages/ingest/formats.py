"""Turn a file's bytes into columns of text; strict, so that a broken file is an error and not a shorter table."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.errors import AttuneError
from stages.common.params import Source

LINE = "line"  # name of the only column of a plain text file


def read_table(file: Path, source: Source) -> pl.DataFrame:
    """Return every row of a file, all columns as text; empty fields are null.

    Raises:
        AttuneError: if the file is empty, damaged, wrongly encoded or ragged, with the line where one is known.
    """
    if source.file_format == "parquet":
        table = _parquet(file, source)
    else:
        text = _decode(_decompress(file, source), source)
        if not text.strip():
            raise AttuneError(f"{source.origin}: the file is empty", "put rows into it, or name another file")
        match source.file_format:
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


def _decompress(file: Path, source: Source) -> bytes:
    data = file.read_bytes()
    try:
        match source.compression:
            case ".gz":
                return gzip.decompress(data)
            case ".bz2":
                return bz2.decompress(data)
            case ".xz":
                return lzma.decompress(data)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise AttuneError(
            f"{source.origin}: cannot be decompressed ({error})", "copy or download the file again"
        ) from None
    return data


def _decode(data: bytes, source: Source) -> str:
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


def _separated(text: str, separator: str, source: Source) -> pl.DataFrame:
    """Read with the csv module in strict mode, which knows the line of every fault (polars pads short rows)."""
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str | None]] = []
    try:
        header = [name.strip() for name in next(row for row in reader if row)]
        other = next((mark for mark in ";\t|," if mark in header[0]), None) if len(header) == 1 else None
        if other:
            raise AttuneError(
                f"{source.origin}: the only column is {header[0]!r}",
                f"if its columns are parted by {other!r}, add this under the source: separator: {json.dumps(other)}",
            )
        for name in header:
            if header.count(name) > 1:
                raise AttuneError(
                    f"{source.origin}:{reader.line_num}: the column {name!r} is there twice", "rename one of them"
                )
        for row in reader:
            if not row:
                continue  # a blank line is no row
            if len(row) != len(header):
                raise AttuneError(
                    f"{source.origin}:{reader.line_num}: {len(row)} fields where the header has {len(header)}",
                    "quote fields that hold the separator, or set separator to the one the file uses",
                )
            rows.append([field or None for field in row])
    except csv.Error as error:
        raise AttuneError(
            f"{source.origin}:{reader.line_num}: {error}",
            "check the quotes there: each field that opens one must close it",
        ) from None
    return pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row")


def _jsonl(text: str, source: Source) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AttuneError(
                f"{source.origin}:{number}: not JSON: {error}", "each line must be one JSON object"
            ) from None
        if not isinstance(row, dict):
            raise AttuneError(
                f"{source.origin}:{number}: a JSON {type(row).__name__}", "each line must be one JSON object"
            )
        rows.append({_without_surrogates(key): _as_text(value) for key, value in row.items()})
    names = dict.fromkeys(name for row in rows for name in row)
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


def _parquet(file: Path, source: Source) -> pl.DataFrame:
    try:
        table = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AttuneError(
            f"{source.origin}: not a readable Parquet file ({reason})", "write or copy it again"
        ) from None
    without_text = (pl.Binary, pl.Object, pl.Duration)  # polars turns none of these into text
    simple = [name for name, kind in table.schema.items() if not kind.is_nested() and kind not in without_text]
    # "" is null here as in every other format
    return table.select(pl.col(name).cast(pl.String).replace("", None) for name in simple)
