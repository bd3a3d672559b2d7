"""Files as streams of bytes: formats and compressions by the ending of a name, and what is decompressed is counted."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from pathlib import PurePosixPath
from typing import IO, Any, cast

ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "lines",
}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSIONS = (*OPENERS, ".zst")
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what the decompressors raise for broken bytes
BLOCK = 1 << 20
ROWS = 50_000  # of a batch
BATCH_BYTES = 32 << 20  # of texts, about, at which a batch ends even if it has fewer rows
LONGEST_MB = 64  # MiB, about, of a cell or a line
LONGEST = LONGEST_MB << 20

Spend = Callable[[int], None]


def format_and_compression(name: str) -> tuple[str | None, str | None]:
    """Return the format and the compression that the endings of a file's name tell; None: none that is known."""
    path = PurePosixPath(name.lower())
    compression = path.suffix if path.suffix in COMPRESSIONS else None
    return ENDINGS.get(PurePosixPath(path.stem).suffix if compression else path.suffix), compression


@dataclass(frozen=True)
class Layout:
    """How the bytes of a file are to be read.

    Args:
        format: csv, tsv, jsonl, parquet or lines.
        compression: one of COMPRESSIONS.
        encoding: of a text file.
        separator: of the columns of a CSV file.
        quote: what a field of CSV or TSV may stand in, to hold separators and line ends; or none.
        header: the first row of CSV or TSV names the columns; else they are column 1, column 2 and so on.
        skip: lines above it that are passed over.
    """

    format: str
    compression: str | None = None
    encoding: str = "utf-8"
    separator: str = ","
    quote: str = '"'
    header: bool = True
    skip: int = 0


class _Counted(RawIOBase):
    """A stream whose bytes are counted as they are read."""

    def __init__(self, stream: Any, spend: Spend) -> None:
        self.stream, self.spend = stream, spend

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.spend(len(data))
        return len(data)


def decompressed(file: IO[bytes], compression: str, spend: Spend) -> IO[bytes]:
    """Return what a compressed file holds, as a stream; `spend` is called with the bytes that come out."""
    if compression in OPENERS:
        stream = OPENERS[compression](file)
    else:
        from pyarrow import CompressedInputStream, PythonFile  # type: ignore[import-untyped]

        stream = CompressedInputStream(PythonFile(file), "zstd")
    return cast(IO[bytes], BufferedReader(_Counted(stream, spend), BLOCK))
