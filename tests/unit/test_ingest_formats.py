"""Reading files: every format gives the same table, a broken file is an error with its line and no shorter table."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import received

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.readers.streams import Layout
from stages.common.readers.table import ROWS
from stages.common.readers.tables import open_table
from stages.ingest.expansion import Limits, SizeBudget

TABLE = {"text": ["naïve, 漢字", 'she said "no"', "two\nlines", None], "label": ["1", "0", "1", None]}
CSV = 'text,label\n"naïve, 漢字",1\n"she said ""no""",0\n"two\nlines",1\n,\n'
JSONL = "".join(
    json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n"
    for text, label in zip(*TABLE.values(), strict=True)
)


def read(
    folder: Path, name: str, content: str | bytes, megabytes: int = 8, size: int = ROWS, **settings: Any
) -> pl.DataFrame:
    """All columns of a file; of JSON lines, which cannot tell theirs beforehand, text and label."""
    file, origin = folder / name, f"data/inbox/{name}"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    mapping = {"label": "x"} if name.split(".")[1] == "txt" else {"columns": {"text": "text", "label": "label"}}
    source = Source(path=origin, **mapping, **settings)
    layout = Layout(source.file_format, source.compression, source.encoding, source.separator)
    with open_table(file, origin, layout, spend=SizeBudget(megabytes, origin).spend) as table:
        batches = list(table.batches(table.columns if table.fixed else ["text", "label"], size))
    assert all(batch.height <= size for batch in batches)
    return pl.concat(batches)


def records(folder: Path, name: str, content: str | bytes) -> pl.DataFrame:
    (folder / "data/inbox").mkdir(parents=True, exist_ok=True)
    file = folder / "data/inbox" / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    mapping = {"label": "x"} if name.split(".")[1] == "txt" else {"columns": {"text": "text", "label": "label"}}
    source = Source(path=f"data/inbox/{name}", **mapping)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return received(source, Limits(), folder, folder)[0][0][1]


def fault(folder: Path, name: str, content: str | bytes, **settings: Any) -> str:
    with pytest.raises(AttuneError) as raised:
        read(folder, name, content, **settings)
    return str(raised.value)


def as_tsv(text: str) -> str:
    rows = csv.reader(io.StringIO(text, newline=""))
    out = io.StringIO(newline="")
    csv.writer(out, delimiter="\t", lineterminator="\n").writerows(rows)
    return out.getvalue()


def parquet_of(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.csv", CSV), ("rows.tsv", as_tsv(CSV)), ("rows.jsonl", JSONL), ("rows.ndjson", JSONL)],
    ids=["csv", "tsv", "jsonl", "ndjson"],
)
def test_every_format_and_compression_gives_the_same_table(
    tmp_path: Path, name: str, content: str, packed: str
) -> None:
    assert read(tmp_path, name + packed, PACKERS[packed](content.encode())).to_dict(as_series=False) == TABLE


@pytest.mark.parametrize("packed", PACKERS)
def test_parquet_gives_the_same_table(tmp_path: Path, packed: str) -> None:
    content = PACKERS[packed](parquet_of(pl.DataFrame(TABLE)))
    assert read(tmp_path, "rows.parquet" + packed, content).to_dict(as_series=False) == TABLE


def test_endings_count_in_any_case(tmp_path: Path) -> None:
    assert read(tmp_path, "rows.CSV.GZ", gzip.compress(CSV.encode())).height == 4


@pytest.mark.parametrize("packed", PACKERS)
def test_plain_lines_are_one_text_each(tmp_path: Path, packed: str) -> None:
    table = read(tmp_path, "rows.txt" + packed, PACKERS[packed]('one\r\n\n, "two"\u2028still two\n'.encode()))
    assert table.to_dict(as_series=False) == {"line": ["one", None, ', "two"\u2028still two']}


def test_the_last_line_counts_with_and_without_its_line_end(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "one\ntwo").equals(read(tmp_path, "b.txt", "one\ntwo\n"))
    assert read(tmp_path, "a.csv", "text,label\na,b").equals(read(tmp_path, "b.csv", "text,label\na,b\n"))


@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.jsonl", JSONL), ("a.txt", "one\n")])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str, content: str) -> None:
    plain = read(tmp_path, name, content)
    assert read(tmp_path, name, b"\xef\xbb\xbf" + content.encode()).equals(plain)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "UTF8"])
def test_other_encodings_are_read_when_they_are_named(tmp_path: Path, encoding: str) -> None:
    table = read(tmp_path, "a.csv", "text,label\nnaïve café,1\n".encode(encoding), encoding=encoding)
    assert table.to_dict(as_series=False) == {"text": ["naïve café"], "label": ["1"]}


def test_a_wrong_encoding_is_told_with_its_line_and_what_to_write(tmp_path: Path) -> None:
    said = fault(tmp_path, "a.csv", "text,label\nplain,1\nnaïve,1\n".encode("latin-1"))
    assert said.startswith("data/inbox/a.csv:3: byte 0xef is not utf-8\n")
    assert "encoding: cp1252" in said


def test_windows_line_ends_and_blank_lines_make_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "text,label\r\na,1\r\n\r\nb,2\r\n\r\n").rows() == [("a", "1"), ("b", "2")]


def test_a_newline_in_quotes_stays_in_its_row_and_counts_as_a_line(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", 'text,label\n"a\r\nb",1\n').rows() == [("a\r\nb", "1")]
    assert "a.csv:4: 3 fields where the header has 2" in fault(tmp_path, "a.csv", 'text,label\n"a\nb",1\nc,2,3\n')


@pytest.mark.parametrize("row", ["a,b,c", "a"])
def test_a_ragged_row_is_told_with_its_line(tmp_path: Path, row: str) -> None:
    said = fault(tmp_path, "a.csv", f"text,label\na,1\n{row}\n")
    assert said.startswith(f"data/inbox/a.csv:3: {len(row.split(','))} fields where the header has 2")
    assert "separator" in said


@pytest.mark.parametrize("content", ['text,label\na,"b\n', 'text,label\na,"b"c\n'])
def test_a_quote_that_does_not_close_is_told_with_its_line(tmp_path: Path, content: str) -> None:
    assert fault(tmp_path, "a.csv", content).startswith("data/inbox/a.csv:2: ")


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.jsonl", "a.txt", "a.csv.gz", "a.csv.bz2", "a.csv.xz", "a.csv.zst"]
)
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    packed = PACKERS[Path(name).suffix if name.count(".") > 1 else ""](content.encode())
    with pytest.raises(AttuneError, match=f"{name}: the file is empty"):
        records(tmp_path, name, packed)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,label\n"),
        ("a.csv", b"text,label\n\n\n"),
        ("a.tsv", b"text\tlabel"),
        ("a.parquet", parquet_of(pl.DataFrame(schema={"text": pl.String, "label": pl.String}))),
    ],
)
def test_a_header_without_rows_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(AttuneError, match="there are no rows below the header"):
        records(tmp_path, name, content)


@pytest.mark.parametrize("header", ["text,label,text", "text,label, text", "text,label,,"])
def test_a_column_name_that_is_there_twice_is_an_error(tmp_path: Path, header: str) -> None:
    said = fault(tmp_path, "a.csv", f"{header}\n{','.join('x' * len(header.split(',')))}\n")
    assert "data/inbox/a.csv:1: the column " in said
    assert "is there twice" in said


def test_blanks_around_a_column_name_are_no_part_of_it(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "text , label\na,1\n").columns == ["text", "label"]


def test_blank_lines_above_the_header_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "\n\ntext,label\na,1\n").rows() == [("a", "1")]


def test_another_separator_is_used_when_it_is_named(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "text;label\na,b;1\n", separator=";").rows() == [("a,b", "1")]


def test_a_format_that_is_named_goes_before_the_ending(tmp_path: Path) -> None:
    assert read(tmp_path, "a.data", "text\tlabel\na\t1\n", format="tsv").rows() == [("a", "1")]


def test_fields_longer_than_pythons_usual_limit_are_read(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert read(tmp_path, "a.csv", f"text,label\n{long},1\n")["text"][0] == long


@pytest.mark.parametrize("packed", list(PACKERS)[1:])
def test_more_than_the_limit_is_not_unpacked(tmp_path: Path, packed: str) -> None:
    data = PACKERS[packed](b"text,label\n" + bytes(3 << 20) + b",1\n")
    assert len(data) < 1 << 20
    said = fault(tmp_path, "a.csv" + packed, data, megabytes=2)
    assert "unpacks to more than 2 MiB" in said
    assert read(tmp_path, "a.csv" + packed, data, megabytes=4).height == 1


@pytest.mark.parametrize("packed", list(PACKERS)[1:])
@pytest.mark.parametrize("damage", ["cut off", "another format", "one byte changed"])
def test_a_damaged_archive_is_an_error_and_not_a_shorter_table(tmp_path: Path, packed: str, damage: str) -> None:
    data = PACKERS[packed](("text,label\n" + "".join(f"text {at},{at}\n" for at in range(5000))).encode())
    match damage:
        case "cut off":
            data = data[: len(data) // 2]
        case "another format":
            data = CSV.encode()
        case _:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
    if packed == ".zst" and damage == "one byte changed":
        return  # without a checksum, which pyarrow does not write, nothing can tell
    said = fault(tmp_path, "a.csv" + packed, data)
    assert "cannot be decompressed" in said or damage == "one byte changed", "that may be seen before the checksum is"


# ── JSON lines ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_values_become_the_text_json_has_for_them(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": True, "label": 1.5}, {"text": ["x", "é"], "label": {"k": None}}]
    table = read(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert table.rows() == [("a", "1"), ("true", "1.5"), ('["x", "é"]', '{"k": null}')]


def test_json_rows_may_leave_keys_out_or_bring_new_ones(tmp_path: Path) -> None:
    table = read(tmp_path, "a.jsonl", '{"text": "a", "mood": ""}\n\n{"label": "1"}\n')
    assert table.to_dict(as_series=False) == {"text": ["a", None], "label": [None, "1"]}


def test_only_line_ends_part_json_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "a.jsonl", '{"text": "a\u2028b\x85c"}\r\n{"text": "d"}\r\n')["text"].to_list() == [
        "a\u2028b\x85c",
        "d",
    ]


@pytest.mark.parametrize("line", ["{'text': 1}", '{"text": "a"', "nope", "[" * 100_000, '{"n": ' + "1" * 5000 + "}"])
def test_a_line_that_is_not_json_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    assert fault(tmp_path, "a.jsonl", f'{{"text": "a"}}\n\n{line}\n').startswith("data/inbox/a.jsonl:3: not JSON: ")


@pytest.mark.parametrize("line", ["[1, 2]", '"text"', "3", "null"])
def test_a_json_line_that_is_no_object_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    said = fault(tmp_path, "a.jsonl", f'{{"text": "a"}}\n{line}\n')
    assert said.startswith("data/inbox/a.jsonl:2: a JSON ")
    assert "each line must be one JSON object" in said


@pytest.mark.parametrize(
    "line",
    ['{"text": "a", "text": "b"}', '{"text": {"x": 1, "x": 1}}', '{"k\\ud83d": 1, "k?": 2}', '{"a": 1, "\\u0061": 2}'],
)
def test_a_key_that_is_there_twice_is_an_error_and_not_the_last_of_two_values(tmp_path: Path, line: str) -> None:
    said = fault(tmp_path, "a.jsonl", f'{{"text": "a"}}\n{line}\n')
    assert said.startswith("data/inbox/a.jsonl:2: not JSON: the key ")
    assert "is there twice" in said


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_long_files_are_read_in_batches_and_come_out_whole(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"text {at}", "label": str(at % 2)} for at in range(10)]
    content = {
        "a.csv": "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows),
        "a.jsonl": "{}\n{}\n" + "\n".join(json.dumps(row) for row in rows[:7]) + "\n{}" * 3,
    }[name]
    whole = read(tmp_path, name, content)
    for part in (1, 2, 3, 10):
        assert read(tmp_path, name, content, size=part).equals(whole)
    assert whole.height == (10 if name == "a.csv" else 12)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.csv.gz"])
def test_a_batch_is_there_before_the_rest_of_the_file_is_read(tmp_path: Path, name: str) -> None:
    line = json.dumps({"text": "x" * 90, "label": "1"}) if name == "a.jsonl" else f"{hash(name)},{'x' * 90}"
    head = "" if name == "a.jsonl" else "text,label\n"
    content = (head + "".join(f"{line}\n" for _ in range(50_000))).encode()
    (tmp_path / name).write_bytes(gzip.compress(content, 0) if name.endswith("gz") else content)
    layout = Layout({"a.jsonl": "jsonl", "a.txt": "lines"}.get(name, "csv"), ".gz" if name.endswith("gz") else None)
    with open_table(tmp_path / name, name, layout) as table:
        assert next(table.batches(table.columns or ["text"], 1000)).height == 1000
        assert table.share and table.share() < 0.5


def test_half_a_surrogate_pair_is_replaced_wherever_it_stands(tmp_path: Path) -> None:
    table = read(tmp_path, "a.jsonl", '{"text": "a\\ud83d!", "label": ["\\ud83d"]}')
    assert table.rows() == [("a?!", '["?"]')]


# ── Parquet ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_simple_parquet_columns_become_text_and_others_are_left_behind(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "text": ["a", ""],
            "whole": [1, None],
            "truth": [True, False],
            "day": [date(2026, 1, 2), None],
            "moment": [datetime(2026, 1, 2, 3, 4), None],
            "hour": [time(3, 4), None],
            "span": [timedelta(seconds=3), None],
            "price": [Decimal("1.50"), None],
            "nothing": pl.Series([None, None], dtype=pl.Null),
            "kind": pl.Series(["x", "y"], dtype=pl.Categorical),
            "bytes": [b"a", b"b"],
            "list": [[1], [2]],
            "struct": [{"a": 1}, {"a": 2}],
        }
    )
    found = read(tmp_path, "a.parquet", parquet_of(table))
    assert set(found.dtypes) == {pl.String}
    assert found.row(0, named=True).items() >= {"text": "a", "whole": "1", "truth": "true", "price": "1.50"}.items()
    assert found["text"].to_list() == ["a", None]
    assert found["nothing"].to_list() == [None, None]
    assert found["kind"].to_list() == ["x", "y"]
    assert not {"bytes", "list", "struct"} & set(found.columns)


@pytest.mark.parametrize("content", [b"", b"PAR1", CSV.encode(), parquet_of(pl.DataFrame(TABLE))[:-20]])
def test_a_file_that_is_no_parquet_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert fault(tmp_path, "a.parquet", content).startswith("data/inbox/a.parquet: not a readable Parquet file")


def test_a_parquet_file_with_a_byte_changed_is_read_or_the_fault_told(tmp_path: Path) -> None:
    whole = parquet_of(pl.DataFrame(TABLE))
    told = 0
    for at in range(0, len(whole), 3):
        try:
            read(tmp_path, "a.parquet", whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        except AttuneError:  # anything else, a panic of polars' too, fails here
            told += 1
    assert told


@pytest.mark.parametrize(("text", "rows"), [("a", 400_000), ("long " * 2_000, 2_000)])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_many_equal_rows_of_a_small_parquet_file_end_at_the_limit(
    tmp_path: Path, text: str, rows: int, packed: str
) -> None:
    content = parquet_of(pl.DataFrame({"text": [text], "label": ["x"]}).select(pl.all().repeat_by(rows).explode()))
    assert len(content) < 100_000
    said = fault(tmp_path, f"a.parquet{packed}", PACKERS[packed](content))
    assert "unpacks to more than 8 MiB" in said
    assert "ingest.max_expanded_mb" in said
    assert read(tmp_path, "a.parquet", content, megabytes=64).height == rows


def test_columns_of_a_parquet_file_that_are_not_mapped_are_not_read(tmp_path: Path) -> None:
    big = pl.DataFrame(TABLE).with_columns(other=pl.lit("x" * 9_000_000))
    (tmp_path / "a.parquet").write_bytes(parquet_of(big))
    budget = SizeBudget(8, "a.parquet")
    with open_table(tmp_path / "a.parquet", "a.parquet", Layout("parquet"), spend=budget.spend) as table:
        assert pl.concat(table.batches(["text", "label"])).equals(pl.DataFrame(TABLE))
        with pytest.raises(AttuneError, match="unpacks to more than 8 MiB"):
            list(table.batches(["other"]))


# ── properties ──────────────────────────────────────────────────────────────────────────────────────────────────────

# \r is left out: a CSV file cannot tell it from a line end unless it is quoted, and csv.writer does quote it.
FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8))
def test_whatever_a_csv_writer_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    table = read(tmp_path_factory.getbasetemp(), "property.csv", out.getvalue())
    assert table.rows() == [(text or None, label or None) for text, label in rows]


@given(st.lists(st.dictionaries(st.sampled_from(["text", "label"]), st.text(max_size=12), min_size=1), min_size=1))
def test_whatever_a_json_writer_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    lines = "\n".join(json.dumps(row) for row in rows)
    table = read(tmp_path_factory.getbasetemp(), "property.jsonl", lines)

    def clean(text: str | None) -> str | None:
        return text.encode("utf-8", "replace").decode() if text else None

    assert [{key: clean(value) for key, value in row.items() if value} for row in rows] == [
        {key: value for key, value in row.items() if value is not None} for row in table.to_dicts()
    ]


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


@pytest.mark.parametrize("rows", ['"a; b";1', "a, b;1", '"a ""b"" c";1', "plain;1"])
@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_separator_is_told_by_the_header_whatever_the_rows_hold(tmp_path: Path, rows: str, mark: str) -> None:
    with pytest.raises(AttuneError, match="the only column is") as told:
        read(tmp_path, "rows.csv", f"text;label\n{rows}\n".replace(";", mark))
    assert f"separator: {json.dumps(mark)}" in str(told.value)


def test_halves_of_characters_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(AttuneError, match=r"rows\.csv:2: half a character"):
        read(tmp_path, "rows.csv", b"text,label\n+2AA-,a\n", encoding="utf-7")
