"""Reading files: every format gives the same table, a broken file is an error with its line and no shorter table."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.readers import parquet, tables
from stages.common.readers.streams import ROWS, Layout
from stages.common.readers.tables import open_table
from stages.ingest.archives import SizeBudget
from tests.unit.small_records import records_of

SKIPPED = bytes.fromhex("502a4d1804000000") + b"pzst"  # a frame of zstd that readers pass over
TABLE = {"text": ["naïve, 漢字", 'she said "no"', "two\nlines", None], "label": ["1", "0", "1", None]}
CSV = 'text,label\n"naïve, 漢字",1\n"she said ""no""",0\n"two\nlines",1\n,\n'
TSV = 'text\tlabel\nnaïve, 漢字\t1\n"she said ""no"""\t0\n"two\nlines"\t1\n\t\n'
JSONL = "".join(
    json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n"
    for text, label in zip(*TABLE.values(), strict=True)
)


def write(folder: Path, name: str, content: str | bytes, **settings: Any) -> tuple[Path, Source, Layout]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    mapping = {"label": "x"} if name.split(".")[1] == "txt" else {"columns": {"text": "text", "label": "label"}}
    source = Source(path=f"data/inbox/{name}", **mapping, **settings)
    dialect = source.separator, source.quote, source.escape, source.header, source.skip
    layout = Layout(source.file_format, source.encoding, *dialect)
    return folder / name, source, layout


def read(
    folder: Path, name: str, content: str | bytes, megabytes: int = 8, size: int = ROWS, **settings: Any
) -> pl.DataFrame:
    """All columns of a file; of JSON lines, which cannot tell theirs beforehand, text and label."""
    file, source, layout = write(folder, name, content, **settings)
    with open_table(file, source.origin, layout, spend=SizeBudget(megabytes, source.origin).spend) as table:
        batches = list(table.batches(table.columns if table.fixed else ["text", "label"], size))
    assert all(batch.height <= size for batch in batches)
    return pl.concat(batches)


def fault(folder: Path, name: str, content: str | bytes, megabytes: int = 8, **settings: Any) -> str:
    file, source, layout = write(folder, name, content, **settings)
    spend = SizeBudget(megabytes, source.origin).spend
    with pytest.raises(AttuneError) as raised, open_table(file, source.origin, layout, spend=spend) as table:
        list(records_of(table, source))
    return str(raised.value)


def documents(folder: Path, files: dict[str, bytes], **settings: Any) -> pl.DataFrame:
    """All columns of a folder of documents."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    paths, layout = {name: folder / name for name in files}, Layout("document", **settings)
    return pl.concat(tables.documents("train/", paths, layout, SizeBudget(8, "train").spend))


def parquet_of(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def arrow_of(columns: dict[str, list[str]]) -> bytes:
    """What `save_to_disk` of datasets writes."""
    table, buffer = pyarrow.table(columns), io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as out:
        out.write_table(table)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return buffer.getvalue()


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
packed_gzip = partial(gzip.compress, mtime=0)  # names of tests must be the same in each process
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": packed_gzip,
    ".BZ2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize(("name", "content"), [("rows.CSV", CSV), ("rows.tsv", TSV), ("rows.ndjson", JSONL)])
def test_every_format_and_compression_gives_the_same_table(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, name, content).to_dict(as_series=False) == TABLE
    for ending, packed in PACKERS.items():
        assert read(tmp_path, name + ending, packed(content.encode())).to_dict(as_series=False) == TABLE


@pytest.mark.parametrize(
    ("name", "content", "settings", "rows"),
    [
        ("a.csv", "\n\ntext , label\r\na,1\r\n\r\nb,2\r\n\r\n", {}, [("a", "1"), ("b", "2")]),
        ("a.csv", '\ufefftext,label\n"a\r\nb",1', {}, [("a\r\nb", "1")]),
        ("a.csv", f"text,label\n{'x' * 300_000},1", {}, [("x" * 300_000, "1")]),  # longer than Python's usual limit
        ("a.csv", "text;label\na,b;1\n", {"separator": ";"}, [("a,b", "1")]),
        ("a.csv", 'text, label\n"a, b", 1\nc, "2"\n', {}, [("a, b", "1"), ("c", "2")]),
        ("a.csv", '"text", "label"\ntext, b\n--, --', {}, [("text", "b"), ("--", "--")]),
        ("a.csv", "text\na\ntext\n--\n", {}, [("a",), ("text",), ("--",)]),
        ("a.csv", 'text\na\n\n""\nb\n', {}, [("a",), (None,), ("b",)]),  # "": an empty cell, a blank line: no row
        ("a.data", "text\tlabel\na\t1\n", {"format": "tsv"}, [("a", "1")]),
        ("a.csv", "text,label\nnaïve,1\n".encode("utf-16"), {"encoding": "utf-16"}, [("naïve", "1")]),
        ("a.txt", '\ufeffone\r\n\n, "two"\u2028still two', {}, [("one",), (None,), (', "two"\u2028still two',)]),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": true, "label": 1.5}', {}, [("a", "1"), ("true", "1.5")]),
        ("a.jsonl", '{"text": ["x", "é"], "label": {"k": null}}', {}, [('["x", "é"]', '{"k": null}')]),
        ("a.jsonl", '\ufeff{"text": "a", "mood": ""}\n\n{"label": "1"}\n', {}, [("a", None), (None, "1")]),
        ("a.jsonl", '{"text": "a\u2028b\x85c"}\r\n{"text": "d"}\r\n', {}, [("a\u2028b\x85c", None), ("d", None)]),
        ("a.jsonl", '{"text": "a\\ud83d!", "label": ["\\ud83d"]}', {}, [("a?!", '["?"]')]),  # half a pair
        ("a.jsonl", '{"text": NaN, "label": NaN}\n{"text": "NaN", "label": 1.0}', {}, [(None, None), ("NaN", "1.0")]),
        ("a.parquet", parquet_of(pl.DataFrame(TABLE)), {}, list(zip(*TABLE.values(), strict=True))),
        (
            "a.parquet",
            parquet_of(pl.DataFrame({"text": ["a", None], "label": [1.0, float("nan")]})),
            {},
            [("a", "1.0"), (None, None)],
        ),
        ("a.json", '{"text": "a", "label": 1}\n', {}, [("a", "1")]),
        *(("a.jsonl", f'{{"text": "a"}}{end}{{"text": "b"}}{end}', {}, [("a", None), ("b", None)]) for end in "\r\n"),
        ("a.txt", "one\r\rtwo", {}, [("one",), (None,), ("two",)]),  # an old Mac's ends of lines
        ("a.txt", "one\rstill\ntwo", {}, [("one\rstill",), ("two",)]),
        # the first bytes tell more than the name
        ("a.csv", "text,label\nnaïve,1\n".encode("utf-16"), {}, [("naïve", "1")]),
        ("a.jsonl", codecs.BOM_UTF16_BE + '{"text": "漢", "label": 1}\n'.encode("utf-16-be"), {}, [("漢", "1")]),
        ("a.csv", "text,label\nnaïve,1\n".encode("utf-8-sig"), {"encoding": "cp1252"}, [("naïve", "1")]),
        ("a.csv", b"\xef\xbb\xbftext,label\nna\xefve,1\n", {"encoding": "cp1252"}, [("naïve", "1")]),
        *(("a.csv", packed(b"text,label\na,1\n"), {}, [("a", "1")]) for packed in PACKERS.values()),
        ("a.csv.zst", SKIPPED + PACKERS[".zst"](b"text,label\na,1\n"), {}, [("a", "1")]),
        ("a.csv.gz", b"text,label\na,1\n", {}, [("a", "1")]),
        ("a.csv.gz", packed_gzip(packed_gzip(b"text,label\na,1\n")), {}, [("a", "1")]),
        ("a.csv.gz", bz2.compress(b"text,label\na,1\n"), {}, [("a", "1")]),
        ("a.csv", parquet_of(pl.DataFrame(TABLE)), {}, list(zip(*TABLE.values(), strict=True))),
        ("a.csv", '\ufeff\ufeff"text","label"\na,1', {}, [("a", "1")]),
        ("a.jsonl", '{"text": "a"}\n\ufeff{"text": "b"}', {}, [("a", None), ("b", None)]),
        ("a.jsonl", '{"text": "a", "data": [{"text": "x"}]}\n{"text": "b"}', {}, [("a", None), ("b", None)]),  # its own
        ("a.jsonl", '{"text": {"k": 1}}\n\n{"text": "b"}', {}, [('{"k": 1}', None), ("b", None)]),
        ("a.csv", "\ufeffsep=;\r\ntext;label\r\na,b;1\r\n", {}, [("a,b", "1")]),
        ("a.csv", "sep=;\ntext|label\na|1\n", {"separator": "|"}, [("a", "1")]),
        ("a.csv", '"sep=\t"\ntext\tlabel\na\t1\n', {}, [("a", "1")]),
    ],
)
def test_what_a_file_holds(
    tmp_path: Path, name: str, content: str | bytes, settings: dict[str, str], rows: list[Any]
) -> None:
    table = read(tmp_path, name, content, **settings)
    assert table.columns == (["line"] if name == "a.txt" else ["text", "label"])[: len(rows[0])]
    assert table.rows() == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *((name, "\ufeff", ": the file is empty") for name in ("a.csv", "a.jsonl", "a.txt")),
        ("a.csv.zst", PACKERS[".zst"](b""), ": the file is empty"),
        ("a.csv", "text,label\n\n\n", ": there are no rows below the header"),
        ("a.parquet", parquet_of(pl.DataFrame(TABLE).head(0)), ": there are no rows below the header"),
        ("a.csv", "text,label\na,1\na\n", ":3: 1 fields where the header has 2"),
        ("a.csv", 'text,label\n"a\nb",1\nc,2,3\n', ":4: 3 fields where the header has 2"),
        ("a.csv", 'text,label\na,"b\nc,d\n', ":2: a quote opens a field here that ends nowhere"),
        ("a.csv", 'text,label\n"a\nb,1\nc",d,2\n', ":2: 3 fields where the header has 2, in a row of 3 lines"),
        ("a.csv", 'text,label\na,"b"c\n', ":2: "),
        (
            "a.csv",
            'text,label\n"a \\"b\\" c",1\n',
            """:2: ',' expected after '"'\n  → check the quotes there: each field that""",
        ),
        ("a.csv", "text,label\na,1,\n", ":2: 3 fields where the header has 2\n  → rows end with a separator"),
        ("a.csv", "text,label\na,1\n>>>>>>> 3f2a\n", ":3: 1 fields where the header has 2\n  → delete this line if"),
        ("a.csv", 'text,label\na,1\n\ufeff"text","label"\nb,2\n', ":3: this is no row, but the header once more"),
        (
            "a.csv",
            "text  ,label\n------,-----\na     ,1    \n",
            ":2: this is no row, but the header once more or a line",
        ),
        ("a.csv", "text,label, text\na,b,c\n", ":1: the column 'text' is there twice"),
        ("a.csv", 'text;label\n"a; b";1\n', ": the only column is 'text;label'"),
        ("a.csv", "text,label\nplain,1\nnaïve,1\n".encode("latin-1"), ":3: byte 0xef is not utf-8\n  → save the file"),
        *(
            (
                "a.csv",
                ("text,label\nnaïve,1\n" + "plain,1\n" * rows).encode() + b"na\xefve,2\n",
                f":{rows + 3}: byte 0xef is not utf-8\n  → the lines above are UTF-8, so write that character",
            )
            for rows in (0, 9999)
        ),
        ("a.jsonl", "{}\n\n{'text': 1}\n", ":3: not JSON: "),
        ("a.jsonl", "{}\n" + "[" * 100_000, ":2: not JSON: "),
        ("a.jsonl", '{"text": "a"}\n[1, 2]\n', ":2: a JSON list\n  → each line must be one JSON object"),
        ("a.parquet", b"", ": not a readable Parquet file"),
        ("a.parquet", parquet_of(pl.DataFrame(TABLE))[:-20], ": not a readable Parquet file"),
        ("a.parquet.gz", packed_gzip(CSV.encode()), ": not a readable Parquet file"),
    ],
)
def test_a_fault_is_an_error_with_its_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    assert fault(tmp_path, name, content).startswith(f"data/inbox/{name}{message}")


def rows_with_quotes(mark: str, text_first: bool, labels: str) -> str:
    """122 rows without rules for quotes: that of line 12 begins its text with one, that of line 72 ends its text so."""
    texts = [f"text {n}" for n in range(122)]
    texts[10], texts[70] = '"Great start', 'the end"'
    pairs = [(text, labels[n % 2]) if text_first else (labels[n % 2], text) for n, text in enumerate(texts)]
    return "\n".join(mark.join(pair) for pair in [("text", "label")[:: 1 if text_first else -1], *pairs])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            zipped("[Content_Types].xml", "xl/workbook.xml"),
            "an Excel workbook or the like\n  → open it, and save it",
        ),
        ("a.csv", bytes.fromhex("d0cf11e0a1b11ae1"), "a document of Excel or Word"),
        ("a.tsv", zipped("rows.tsv"), "a ZIP archive\n  → let its name end in .zip"),
        ("a.csv", b"%PDF-1.7\n%\xe2\xe3\n", "a PDF document"),
        ("a.csv", "\n<!DOCTYPE HTML><title>404</title>", "a web page\n  → download the file itself"),
        ("a.jsonl.gz", packed_gzip(b"<html><body>"), "a web page"),
        ("a.csv", '<?xml version="1.0"?>', "XML"),
        *(
            (name, LFS, "a pointer of Git LFS\n  → fetch the file itself: git lfs pull")
            for name in ("a.parquet", "a.txt")
        ),
        ("a.csv", b"SQLite format 3\0", "a database of SQLite"),
        ("a.parquet", arrow_of({"text": ["a"]}), "a table of Arrow or Avro\n  → write it as Parquet"),
        ("a.txt.bz2", bz2.compress(b"__label__2 Great CD: so good\n"), "fastText's format\n  → say format: fasttext"),
        ("a.csv", "<table border='1'><tr><th>text</th>", "a table of HTML\n  → open it"),
        ("a.csv", '{"error": "not found"}', "JSON"),
        ("a.txt", parquet_of(pl.DataFrame(TABLE)), "a Parquet file\n  → say format: parquet"),
        ("a.csv", "text,label\nnaïve,1\n".encode("utf-16-be"), "UTF-16 without a mark\n  → say encoding: utf-16-be"),
    ],
)
def test_what_is_no_such_file_is_named_with_what_to_do(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    assert fault(tmp_path, name, content).startswith(f"data/inbox/{name}: this is {message}")


def test_a_document_is_a_row_with_its_name_and_folder(tmp_path: Path) -> None:
    files = {"pos/1.txt": b'two\r\nlines, "quoted"\n', "neg/a,b": b"", "top.html": "<html>naïve".encode("utf-16")}
    table = documents(tmp_path, files | {"deep/er/2.txt.gz": packed_gzip("naïve".encode())})
    assert table.columns == ["text", "file", "folder"]
    assert table.rows() == [
        ('two\r\nlines, "quoted"\n', "pos/1.txt", "pos"),
        (None, "neg/a,b", "neg"),
        ("<html>naïve", "top.html", "train"),
        ("naïve", "deep/er/2.txt.gz", "er"),
    ]
    assert documents(tmp_path, {"1": "naïve".encode("cp1252")}, encoding="cp1252")["text"].to_list() == ["naïve"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\xff", "train/1.txt:2: byte 0xff is not utf-8"),
        (b"a\n" * 20, "train/1.txt: a document of more than 64 MiB"),
        (b"%PDF-1.7", "train/1.txt: this is a PDF document"),
    ],
)
def test_a_document_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.setattr(tables, "LONGEST", 32)
    with pytest.raises(AttuneError) as raised:
        documents(tmp_path, {"0.txt": b"x", "1.txt": content})
    assert str(raised.value).startswith(message)


def test_columns_without_a_name_are_called_by_their_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", "label,text,,,\nham,a,,,\nspam,b,c,,\n")
    assert table.columns == ["label", "text", "column 3", "column 4", "column 5"]
    assert table.row(1) == ("spam", "b", "c", None, None)


def test_a_file_without_a_header_or_with_lines_above_it_is_read(tmp_path: Path) -> None:
    table = read(tmp_path, "a.tsv", "spam\tone\nham\ttwo\n", header=False)
    assert table.columns == ["column 1", "column 2"] and table.rows() == [("spam", "one"), ("ham", "two")]
    assert read(tmp_path, "a.csv", "<p>a</p>,1\n", header=False).row(0) == ("<p>a</p>", "1")
    assert read(tmp_path, "a.csv", 'made "by"\n\ntext,label\na,1\n', skip=2).rows() == [("a", "1")]
    assert fault(tmp_path, "a.csv", "x\nsep=;\ntext;label\na\n", skip=1).startswith("data/inbox/a.csv:4: 1 fields")
    swallowed = 'ham\t"one\nham\ttwo"\nspam\tx\n'
    with pytest.raises(AttuneError, match=r"a\.tsv:1: a quote opens a field here that swallows rows"):
        read(tmp_path, "a.tsv", swallowed, header=False)


def test_lines_are_counted_from_the_beginning_of_the_file_when_excel_begins_it(tmp_path: Path) -> None:
    assert fault(tmp_path, "a.csv", "sep=;\ntext;label\na;1\nb\n").startswith("data/inbox/a.csv:4: 1 fields")


@pytest.mark.parametrize(
    ("name", "row", "line"),
    [
        ("a.csv.gz", b"%s,1\n", ":2: a line of more than 64 MiB"),
        ("a.csv.gz", b'"%s",1\n', ":2: a line of more than 64 MiB"),
        ("a.txt.gz", b"\n%s\n", ":3: a line of more than 64 MiB"),
        ("a.jsonl.gz", b'{"text": "%s"}\n', ":2: a line of more than 64 MiB"),
        ("a.csv.gz", b'a,0\n"%s', ":3: a quote opens a field here that ends nowhere, or after more than 64 MiB"),
        ("a.parquet", b"", ": the column 'text' has a cell of more than 64 MiB"),
    ],
)
def test_an_endless_cell_or_line_is_an_error_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: bytes, line: str
) -> None:
    for module in (tables, parquet):
        monkeypatch.setattr(module, "LONGEST", 1 << 20)
    long = (b"x" * 99 + b"\n") * 20_000 if "quote" in line else bytes(3 << 20)
    content = packed_gzip((b"{}\n" if "json" in name else b"text,label\n") + row.replace(b"%s", long), 1)
    if name == "a.parquet":
        content = parquet_of(pl.DataFrame({"text": ["a", "x" * (3 << 20)], "label": ["1", "2"]}))
    assert fault(tmp_path, name, content).startswith(f"data/inbox/{name}{line}")


def test_a_parquet_column_that_has_no_form_as_text_is_named_with_what_it_holds(tmp_path: Path) -> None:
    holds = {"lists": [["a"]], "structs": [{"a": 1}], "bytes": [b"a"], "durations": [timedelta(seconds=3)]}
    for what, text in holds.items():
        message = fault(tmp_path, "a.parquet", parquet_of(pl.DataFrame({"text": text, "label": ["1"]})))
        assert message.startswith(f"data/inbox/a.parquet: the column 'text' (for text) is there, but holds {what}\n")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (["pos"], "pos"),
        (["naïve"], "naïve"),
        ([3], "3"),
        (None, None),
        ([None], None),
        ([], "row 2: instead of one label there is an empty list: []"),
        (["a", "b"], 'row 2: instead of one label there seem to be several labels: ["a", "b"]'),
        ({"pos": 0.9}, 'row 2: instead of one label there seem to be scores per label: {"pos": 0.9}'),
    ],
)
def test_a_label_in_a_list_of_parquet_is_that_label(tmp_path: Path, label: Any, expected: str | None) -> None:
    content = parquet_of(pl.DataFrame({"text": ["a", "b"], "label": [None, label]}))
    if expected and expected.startswith("row"):
        assert fault(tmp_path, "a.parquet", content).startswith(f"data/inbox/a.parquet, {expected}")
        return
    file, source, layout = write(tmp_path, "a.parquet", content)
    with open_table(file, source.origin, layout) as table:
        assert pl.concat(records_of(table, source))["label"].to_list() == [None, expected]


@pytest.mark.parametrize(
    ("features", "listed", "labels"),
    [
        ({"label": {"names": ["neg", "pos"]}, "text": {"dtype": "string"}}, (), ["pos", None, "neg", None]),
        ({"label": {"names": ["neg", "pos"]}}, {"neg": "bad", "pos": "good"}, ["pos", None, "neg", None]),
        ({"label": {"names": ["neg"]}}, (), ["1", None, "neg", None]),
        ({"label": {"names": ["neg", "pos"]}}, {"0": "bad", "1": "good"}, ["1", "-1", "0", None]),
        ({"label": {"dtype": "int64"}}, (), ["1", "-1", "0", None]),
        ([], (), ["1", "-1", "0", None]),
        ({"label": 1}, (), ["1", "-1", "0", None]),
    ],
)
def test_labels_of_hugging_faces_datasets_have_the_names_that_the_file_holds(
    tmp_path: Path, features: Any, listed: Any, labels: list[str | None]
) -> None:
    table, buffer = pyarrow.table({"text": ["a", "b", "c", "d"], "label": [1, -1, 0, None]}), io.BytesIO()
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), buffer)
    file, source, layout = write(tmp_path, "a.parquet", buffer.getvalue())
    with open_table(file, source.origin, layout) as opened:
        assert pl.concat(records_of(opened, source, labels=listed or None))["label"].to_list() == labels


@pytest.mark.parametrize(
    ("name", "content", "settings", "rows"),
    [
        ("a.csv", r"""text,label
"say \"a, b\"",x
C:\new\\dir,\N
"twice "" so, \\",y
a\, b,z
""", {}, [('say "a, b"', "x"), (r"C:\new\dir", r"\N"), ('twice " so, ' + "\\", "y"), ("a, b", "z")]),
        ("a.csv", 'label,text\r\nx,"a\\\r\nb \\"c\\""\r\n', {}, [("x", 'a\r\nb "c"')]),
        ("a.tsv", 'text\tlabel\na\\\tb\\\nc "\t1\n', {"quote": "none"}, [('a\tb\nc "', "1")]),
        ("a.csv", "text;label\na\\;b\\t;1\n", {"separator": ";"}, [("a;b\\t", "1")]),
    ],
)  # fmt: skip
def test_a_backslash_takes_away_the_meaning_of_quotes_separators_and_line_ends_if_params_say_so(
    tmp_path: Path, name: str, content: str, settings: dict[str, Any], rows: list[tuple[str, str]]
) -> None:
    assert read(tmp_path, name, content, escape="\\", **settings).rows() == rows
    message = fault(tmp_path, "b.csv", 'text,label\n"a \\"b\\"",1\n')
    assert r"""escape: "\\" (ARGS="--escape '\\'")""" in message


@pytest.mark.parametrize("labels", ["01", "ab"])
@pytest.mark.parametrize("text_first", [True, False])
@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", "\t"), ("a.csv", ","), ("a.csv", ";")])
def test_a_quote_that_swallows_rows_is_an_error_and_quote_none_reads_them(
    tmp_path: Path, name: str, mark: str, text_first: bool, labels: str
) -> None:
    content, settings = rows_with_quotes(mark, text_first, labels), {"separator": mark}
    message = fault(tmp_path, name, content, **settings)
    assert message.startswith(f"data/inbox/{name}:12: a quote opens a field here that swallows rows")
    assert "quote: none" in message and "--quote none" in message
    table = read(tmp_path, name, content, quote="none", **settings)
    assert table.height == 122 and table["text"][10] == '"Great start'


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", 'text,label\n"good,1\nbad,0\nfine",1\n', 2),  # nothing but what is swallowed
        ("a.csv", 'label,text\na,x\na,"good\nb,bad"\nb,x\n', 3),  # a label that is seen later
        ("a.csv", 'label,text\nb,"x, y"\na,"b\nb,c"\na,x\n', 3),  # elsewhere quotes are needed
        ("a.csv", 'label,text\n1,"x, y"\n2,"a\n3,c"\n2,x\n', 3),
        ("a.csv", 'text,label\n"x, y",1\n"good,1\nbad",0\n', 3),
        ("a.tsv", 'label\tx\ttext\na\t"b\nc"\t"d\ne\tf\tg"\n', 3),  # the line of the quote, not of the row
    ],
)
def test_few_swallowed_rows_are_found_too(tmp_path: Path, name: str, content: str, line: int) -> None:
    assert fault(tmp_path, name, content).startswith(f"data/inbox/{name}:{line}: a quote opens a field here")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", 'text,label\nx,1\n"first, line\nsecond",1\n', "first, line\nsecond"),
        ("a.csv", 'label,text\n1,x\n1,"first\nreally, good"\n', "first\nreally, good"),
        ("a.csv", 'id,text,label\n1,"x, y",1\n2,"a, b\n10,000 c",0\n', "a, b\n10,000 c"),
        ("a.csv", 'label,text\n1,"x, y"\n1,"about\n10,000 people"\n', "about\n10,000 people"),
        ("a.csv", 'label,text\n10,x\n20,"about\n10,000 people"\n', "about\n10,000 people"),
        ("a.csv", 'label,text\nNo,x\nNo,"Really?\nNo, never"\n', "Really?\nNo, never"),
        ("a.tsv", 'text\tlabel\nx\t1\n"first, line\nsecond"\t1\n', "first, line\nsecond"),
        ("a.tsv", 'text\tlabel\nx\t1\n"first\tline"\t1\n', "first\tline"),
    ],
)
def test_quoted_texts_with_line_ends_and_separators_are_read(
    tmp_path: Path, name: str, content: str, text: str
) -> None:
    assert read(tmp_path, name, content)["text"].to_list()[1:] == [text]


@pytest.mark.parametrize("packed", PACKERS)
def test_more_than_the_limit_is_not_unpacked(tmp_path: Path, packed: str) -> None:
    data = PACKERS[packed](b"text,label\n" + bytes(3 << 20) + b",1\n")
    assert len(data) < 1 << 20
    assert "unpacks to more than 2 MiB" in fault(tmp_path, "a.csv" + packed, data, megabytes=2)
    assert read(tmp_path, "a.csv" + packed, data, megabytes=4).height == 1


@pytest.mark.parametrize("packed", PACKERS)
def test_a_damaged_archive_is_an_error_and_not_a_shorter_table(tmp_path: Path, packed: str) -> None:
    data = PACKERS[packed](("text,label\n" + "".join(f"text {n},{n}\n" for n in range(5000))).encode())
    middle = len(data) // 2
    assert "cannot be decompressed" in fault(tmp_path, "a.csv" + packed, data[:middle])
    if packed != ".zst":  # without a checksum, which pyarrow does not write, nothing can tell
        fault(tmp_path, "a.csv" + packed, data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])


@pytest.mark.parametrize(("name", "line"), [("a.csv", "text {0},1\n"), ("a.jsonl", '{{"text": {0}, "label": 1}}\n')])
def test_long_files_are_read_in_batches_and_come_out_whole(tmp_path: Path, name: str, line: str) -> None:
    content = ("text,label\n" if name == "a.csv" else "{}\n{}\n") + "".join(line.format(n) for n in range(10))
    whole = read(tmp_path, name, content)
    assert whole.height == (10 if name == "a.csv" else 12)
    assert all(read(tmp_path, name, content, size=size).equals(whole) for size in (1, 3, 10))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.csv.gz"])
def test_a_batch_is_there_before_the_rest_of_the_file_is_read(tmp_path: Path, name: str) -> None:
    line = json.dumps({"text": "x" * 90, "label": "1"}) if name == "a.jsonl" else f"1,{'x' * 90}"
    content = ("" if name == "a.jsonl" else "text,label\n") + f"{line}\n" * 50_000
    file, _, layout = write(tmp_path, name, packed_gzip(content.encode(), 0) if name.endswith("gz") else content)
    with open_table(file, name, layout) as table:
        assert next(table.batches(table.columns or ["text"], 1000)).height == 1000
        assert table.share and table.share() < 0.5


def test_simple_parquet_columns_become_text_and_others_are_left_behind(tmp_path: Path) -> None:
    simple = {"text": ["a", ""], "whole": [1, None], "truth": [True, False], "day": [date(2026, 1, 2), None]}
    simple |= {"price": [Decimal("1.50"), None], "kind": pl.Series(["x", "y"], dtype=pl.Categorical)}
    others = {"span": [timedelta(seconds=3), None], "bytes": [b"a", b"b"], "list": [[1], [2]], "struct": [{"a": 1}] * 2}
    texts = read(tmp_path, "a.parquet", parquet_of(pl.DataFrame({**simple, **others})))
    assert texts.rows() == [("a", "1", "true", "2026-01-02", "1.50", "x"), (None, None, "false", None, None, "y")]
    assert texts.columns == [*simple] and set(texts.dtypes) == {pl.String}


def test_a_parquet_file_with_a_byte_changed_is_read_or_an_error(tmp_path: Path) -> None:
    whole = parquet_of(pl.DataFrame(TABLE))
    errors = 0
    for position in range(0, len(whole), 5):
        try:
            read(tmp_path, "a.parquet", whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        except AttuneError:  # anything else, a panic of polars' too, fails here
            errors += 1
    assert errors


def test_a_parquet_file_ends_at_the_limit_and_only_mapped_columns_count(tmp_path: Path) -> None:
    few = pl.DataFrame({"text": ["long " * 2_000], "label": ["x"]})
    content = parquet_of(few.select(pl.all().repeat_by(2_000).explode()).with_columns(other=pl.lit("y" * 9_000)))
    assert len(content) < 100_000
    assert "unpacks to more than 8 MiB" in fault(tmp_path, "a.parquet", content)
    file, source, layout = write(tmp_path, "a.parquet", content)
    with open_table(file, source.origin, layout, spend=SizeBudget(1, source.origin).spend) as table:
        assert pl.concat(table.batches(["label"])).height == 2_000


FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8))
def test_whatever_a_writer_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    lines = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    for name, content in (("property.csv", out.getvalue()), ("property.jsonl", lines)):
        table = read(tmp_path_factory.getbasetemp(), name, content)
        assert table.rows() == [(text or None, label or None) for text, label in rows]


@given(st.binary(max_size=60), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.txt", "a.csv.gz", "a.csv.xz"]))
def test_whatever_bytes_a_file_holds_the_answer_is_a_table_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    try:
        table = read(tmp_path_factory.getbasetemp(), name, content)
    except AttuneError as error:
        assert str(error).startswith(f"data/inbox/{name}")
    else:
        assert set(table.dtypes) == {pl.String}
