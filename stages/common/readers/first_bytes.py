"""What a file is by its first bytes, whatever its name says: read so if that is certain, or named with what to do."""

import codecs
import re
from dataclasses import replace
from typing import Any

from stages.common.errors import AttuneError
from stages.common.readers.streams import Layout, Spend, decompressed

HEAD = 4096  # bytes
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # of byte orders
PACKED = {
    ".gz": rb"\x1f\x8b\x08",
    ".bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    ".xz": rb"\xfd7zXZ\0",
    ".zst": rb"\x28\xb5\x2f\xfd",
}
BINARY = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")  # bytes that no text has
PARQUET = b"PAR1\x15"
TABLES = ("csv", "tsv", "jsonl", "parquet", "lines")
ALL = (*TABLES, "document")
SAVE = "open it, and save it as CSV or text (UTF-8)"
OTHERS = (  # formats that are checked, how the file begins without its NULs, what it is, what to do
    (ALL, rb"version https://git-lfs\.github\.com", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (ALL, rb"/annex/objects/", "a pointer of git-annex", "fetch the file itself: git annex get"),
    (TABLES, rb"(?i)\s*<(!doctype html|html)\b", "a web page", "download the file itself, logged in if need be"),
    (TABLES, rb"(?i)\s*<(\?xml|!doctype)\b", "XML", "make CSV or JSON lines of it"),
    (ALL, rb"(?s)PK\x03\x04.*(\[Content_Types\]|_rels/|opendocument)", "an Excel workbook or the like", SAVE),
    (ALL, rb"\xd0\xcf\x11\xe0", "a document of Excel or Word", SAVE),
    (ALL, rb"PK\x03\x04", "a ZIP archive", "let its name end in .zip, and name the file inside it as member:"),
    (ALL, rb"%PDF-", "a PDF document", "convert it to text, or copy its table into a spreadsheet and save that as CSV"),
    (ALL, rb"SQLite format 3", "a database of SQLite", "read it with sql: and query:"),
    (ALL, rb"ARROW1\xff|Obj\x01", "a table of Arrow or Avro", "write it as Parquet"),
    (("lines", "document"), PARQUET, "a Parquet file", "say format: parquet, and name its columns"),
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
    if layout.format == "parquet" or head.startswith(PARQUET):
        layout = replace(layout, format="parquet")
    elif mark:
        layout = replace(layout, encoding=MARKS[mark])
    elif layout.encoding == "utf-8" and len(head) < 4 * head.count(0) < 3 * len(head):
        order = "le" if head[0] else "be"  # every second byte of European texts is zero
        raise AttuneError(f"{origin}: this is UTF-16 without a mark", f"say encoding: utf-16-{order}")
    return file, layout
