"""The bytes of a file as they are read: decompressed, counted, decoded line by line."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import IO, Any, cast

from stages.common.errors import AttuneError

ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "lines",
}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSIONS = (*OPENERS, ".zst")
BLOCK = 1 << 20
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what the decompressors raise for broken bytes

Spend = Callable[[int], None]


@dataclass(frozen=True)
class Layout:
    """How the bytes of a file are to be read.

    Args:
        format: csv, tsv, jsonl, parquet or lines.
        compression: one of COMPRESSIONS.
        encoding: of a text file.
        separator: of the columns of a CSV file.
    """

    format: str
    compression: str | None = None
    encoding: str = "utf-8"
    separator: str = ","


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


def lines_of(text: Iterable[str], origin: str, encoding: str) -> Iterator[str]:
    """Yield lines with their ends.

    Raises:
        AttuneError: with the line, if a byte is not of the encoding, or the compressed file is damaged.
    """
    read = 0
    try:
        for line in text:
            read += 1
            yield line
    except UnicodeDecodeError as error:
        number = read + 1 + error.object.count(b"\n", 0, error.start)
        raise AttuneError(
            f"{origin}:{number}: byte 0x{error.object[error.start]:02x} is not {encoding}",
            "save the file as UTF-8, or say how it is encoded: encoding: cp1252 (Western Europe), gb18030 (Chinese) or "
            "utf-16 under the source, say (of `make predict`: ARGS='--encoding cp1252')",
        ) from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise AttuneError(f"{origin}: cannot be decompressed ({error})", "copy or download the file again") from None
