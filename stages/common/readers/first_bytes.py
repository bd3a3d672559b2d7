"""What a file is by its first bytes, whatever its name says: read so if that is certain, or named with what to do."""

import codecs
import re
from dataclasses import replace
from typing import Any

from stages.common.errors import AttuneError
from stages.common.readers.streams import Layout, Spend, decompressed

HEAD = 4096  # bytes
MARKS = {  # of byte orders, the longer before their beginnings
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PACKED = {
    ".gz": rb"\x1f\x8b\x08",
    ".bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    ".xz": rb"\xfd7zXZ\0",
    ".zst": rb"\x28\xb5\x2f\xfd",
}
BINARY = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")  # bytes that no text has
PARQUET = b"PAR1\x15"
TEXT = ("csv", "tsv", "jsonl", "lines")
ANY = ("parquet", *TEXT)
AS_CSV = "save it as CSV (UTF-8)"
OTHERS = (  # formats that are checked, how the file begins without its NULs, what it is, what to do
    (ANY, rb"version https://git-lfs\.github\.com", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (ANY, rb"/annex/objects/", "a pointer of git-annex", "fetch the file itself: git annex get"),
    (ANY, rb"(?i)\s*<(!doctype html|html)\b", "a web page", "download the file itself, logged in if need be"),
    (TEXT, rb"(?i)\s*<(\?xml|!doctype)\b", "XML", "make CSV or JSON lines of it"),
    (
        ANY,
        rb"(?s)PK\x03\x04.*(\[Content_Types\]|_rels/|opendocument)",
        "an Excel workbook",
        f"open it, and {AS_CSV}",
    ),
    (ANY, rb"\xd0\xcf\x11\xe0", "a document of Excel or Word", f"open it, and {AS_CSV}"),
    (ANY, rb"PK\x03\x04", "a ZIP archive", "let its name end in .zip, and name the file inside it as member:"),
    (ANY, rb"%PDF-", "a PDF document", f"copy its table into a spreadsheet, and {AS_CSV}"),
    (ANY, rb"SQLite format 3", "a database of SQLite", "read it with sql: and query:"),
    (ANY, rb"ARROW1\xff|\xff{4}|Obj\x01", "a table of Arrow or Avro", "write it as Parquet (datasets: to_parquet)"),
    (("lines",), rb"__label__\S+ ", "fastText's format", r"make a .tsv of it: sed -E 's/^__label__(\S+) /\1\t/'"),
    (("csv", "tsv"), rb"(?is)\s*<\w+.*<tr\b", "a table of HTML", f"open it in a spreadsheet, and {AS_CSV}"),
    (("csv", "tsv"), rb'\s*(\[\s*)?\{\s*"', "JSON", "if each line of it is an object, say format: jsonl"),
    (("jsonl",), rb"\s*(\[|\{\s*[\r\n])", "one JSON document", "write each object on a line of its own: jq -c '.[]'"),
)


def recognized(file: Any, layout: Layout, origin: str, spend: Spend) -> tuple[Any, Layout]:
    """Return the stream of what a file holds, decompressed, and its layout as the first bytes tell it.

    Args:
        file: open, of which nothing is read yet.
        layout: as the file's name and the settings have it.
        origin: what messages call it.
        spend: called with the bytes that come out of a compressed file.

    Raises:
        AttuneError: if it is none of the formats that can be read, with what to do.
    """
    head, named = file.peek(HEAD)[:HEAD], layout.compression
    for _ in range(2):  # some servers pack what is packed; some browsers unpack it, and leave it its name
        packed = next((ending for ending, magic in PACKED.items() if re.match(magic, head)), None)
        if packed := packed or (named if BINARY.search(head) else None):
            file, named = decompressed(file, packed, spend), None
            head = file.peek(HEAD)[:HEAD]
    mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
    start = head[len(mark) :].replace(b"\0", b"")
    for formats, pattern, what, fix in OTHERS:
        if layout.format in formats and re.match(pattern, start):
            raise AttuneError(f"{origin}: this is {what}", fix)
    if layout.format != "parquet" and head.startswith(PARQUET):
        if layout.format == "lines":
            raise AttuneError(f"{origin}: this is a Parquet file", "say format: parquet, and name its columns")
        layout = replace(layout, format="parquet")
    if mark:
        layout = replace(layout, encoding=MARKS[mark])
    elif layout.encoding == "utf-8" and layout.format != "parquet":
        for first, order in ((1, "le"), (0, "be")):
            if head[first::2].count(0) > len(head) / 4 and head[1 - first :: 2].count(0) < len(head) / 20:
                raise AttuneError(f"{origin}: this is UTF-16 without a mark", f"say encoding: utf-16-{order}")
    return file, layout
