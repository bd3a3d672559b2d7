"""Files as streams of bytes: what names and first bytes tell of them, and what is decompressed is counted."""

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from io import BufferedReader, RawIOBase
from pathlib import PurePosixPath
from typing import Any

from stages.common.display import display
from stages.common.errors import AttuneError

ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "lines",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what the decompressors raise for broken bytes
BLOCK, HEAD = 1 << 20, 4096  # bytes
ROWS = 50_000  # of a batch
BATCH_BYTES = 32 << 20  # of texts, about, at which a batch ends even if it has fewer rows
LONGEST_MB = 64  # MiB, about, of a cell or a line
LONGEST = LONGEST_MB << 20

Spend = Callable[[int], None]


def format_of(name: str) -> str | None:
    """Return the format that the endings of a file's name tell; None: none that is known."""
    path = PurePosixPath(name.lower())
    return ENDINGS.get(PurePosixPath(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix)


@dataclass(frozen=True)
class Layout:
    """How the bytes of a file are to be read; all but the first two are of CSV and TSV."""

    format: str  # csv, tsv, jsonl, parquet, lines, fasttext or document
    encoding: str = "utf-8"  # of a text file
    separator: str = ","  # of the columns of CSV
    quote: str = '"'  # what a field may stand in, to hold separators and line ends; or none
    escape: str = "none"  # what takes away the meaning of a quote, separator or line end behind it; or none
    header: bool = True  # the first row names the columns; else they are column 1, column 2 and so on
    skip: int = 0  # lines above it that are passed over


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


OPENERS: dict[bytes, Callable[[Any], Any]] = {  # by the first bytes
    rb"\x1f\x8b\x08": gzip.open,
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": bz2.open,
    rb"\xfd7zXZ\0": lzma.open,
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": lambda file: import_module("pyarrow").input_stream(file, "zstd"),
}


def decompressed(file: Any, spend: Spend) -> Any:
    """Return what a file holds, decompressed if its first bytes say so; `spend` is called with what comes out."""
    opener = next((opener for magic, opener in OPENERS.items() if re.match(magic, file.peek(HEAD))), None)
    return BufferedReader(_Counted(opener(file), spend), BLOCK) if opener else file


MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # of byte orders
PARQUET = b"PAR1\x15"
TABLES = ("csv", "tsv", "jsonl", "parquet", "lines", "fasttext")
ALL = (*TABLES, "document")
SAVE = "open it, and save it as CSV or text (UTF-8)"
FASTTEXT = r"say format: fasttext (for `make predict` take the labels off: sed -E 's/__label__\S+ ?//g')"
OTHERS = (  # formats that are checked, how the file begins without its NULs, what it is, what to do
    (ALL, rb"version https://git-lfs\.github\.com", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (TABLES, rb"(?i)\s*<(!doctype html|html)\b", "a web page", "download the file itself, logged in if need be"),
    (TABLES, rb"(?i)\s*<(\?xml|!doctype)\b", "XML", "make CSV or JSON lines of it"),
    (ALL, rb"(?s)PK\x03\x04.*(\[Content_Types\]|_rels/|opendocument)", "an Excel workbook or the like", SAVE),
    (ALL, rb"\xd0\xcf\x11\xe0", "a document of Excel or Word", SAVE),
    (ALL, rb"PK\x03\x04", "a ZIP archive", "let its name end in .zip, and name the file inside it as member:"),
    (ALL, rb"%PDF-", "a PDF document", "convert it to text, or copy its table into a spreadsheet and save that as CSV"),
    (ALL, rb"ARROW1\xff|\xff{4}|Obj\x01", "a table of Arrow or Avro", "write it as Parquet (datasets: to_parquet)"),
    (("lines",), rb"__label__\S+ ", "fastText's format", FASTTEXT),
    (("csv", "tsv"), rb"(?is)\s*<\w+.*<tr\b", "a table of HTML", "open it in a spreadsheet, and save that as CSV"),
    (ALL, rb"SQLite format 3", "a database of SQLite", "read it with sql: and query:"),
    (("lines", "fasttext", "document"), PARQUET, "a Parquet file", "say format: parquet, and name its columns"),
    (("csv", "tsv"), rb'\s*(\[\s*)?\{\s*"', "JSON", "if each line of it is an object, say format: jsonl"),
)


def recognized(file: Any, layout: Layout, origin: str, spend: Spend) -> tuple[Any, Layout]:
    """Return the stream of what a file holds, decompressed, and its layout as the first bytes tell it.

    Nothing is read yet of the open file; its name and the settings have this layout. `spend` is called with the bytes
    that come out of a compressed one. An AttuneError says what to do with a format that cannot be read.
    """
    for _ in range(2):  # some servers pack what is packed
        file = decompressed(file, spend)
    head = file.peek(HEAD)[:HEAD]
    mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
    start = head[len(mark) :].replace(b"\0", b"")
    for formats, pattern, what, fix in OTHERS:
        if layout.format in formats and re.match(pattern, start):
            raise AttuneError(f"{origin}: this is {what}", fix)
    if layout.format == "parquet" or head.startswith(PARQUET):
        layout = replace(layout, format="parquet")
    elif (
        mark == codecs.BOM_UTF8
        and layout.encoding != "utf-8"
        and "\ufffd" in head[: HEAD - 3].decode(errors="replace")[:-1]
    ):
        file.read(len(mark))  # a program put it before a text of another encoding
    elif mark:
        layout = replace(layout, encoding=MARKS[mark])
    elif layout.encoding == "utf-8" and len(head) < 4 * head.count(0) < 3 * len(head):
        order = "le" if head[0] else "be"  # every second byte of European texts is zero
        raise AttuneError(f"{origin}: this is UTF-16 without a mark", f"say encoding: utf-16-{order}")
    return file, layout


@contextmanager
def damage_as_errors(origin: str, what: str = "cannot be decompressed", kinds: Any = DAMAGE) -> Iterator[None]:
    """Raise AttuneError for what the readers of damaged bytes raise; errors of the disk pass."""
    try:
        yield
    except kinds as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = display((str(error).splitlines() or [type(error).__name__])[0], 160)
        fix = (
            "copy or download the file again; or, if gunzip or the like unpacks it with a warning, take what that gives"
        )
        raise AttuneError(f"{origin}: {what} ({reason})", fix) from None
