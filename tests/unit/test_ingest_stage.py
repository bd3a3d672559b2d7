"""The whole stage over sources of several kinds: each row accounted for, the same bytes each time, no secret told."""

import csv
import io
import json
import sqlite3
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
from file_server import serving
from hypothesis import given
from hypothesis import strategies as st
from small_project import SCRATCH, Project, received

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.params.places import PROTOCOLS
from stages.common.schemas import Decontamination, RawRecords, Rejected
from stages.ingest.__main__ import main
from stages.ingest.expansion import Limits
from stages.ingest.spool import Selection, Spool

MAPPED = {"columns": {"text": "text", "label": "label", "timestamp": "day"}}
BASE = {"base_model": {"scratch": SCRATCH}}
OUTS = ("data/raw/records.parquet", "data/raw/rejected.parquet", "data/raw/decontamination.parquet",
        "data/raw/manifest.json", "models/resources/resources.json")  # fmt: skip


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sources name fsspec's file system in memory, which stands in for those of the clouds."""
    monkeypatch.setitem(PROTOCOLS, "memory", "fsspec")


def rows(kind: str, count: int = 6) -> str:
    lines = [f"{kind} text {at},{'ab'[at % 2]},2026-01-{at + 1:02}" for at in range(count)]
    return "text,label,day\n" + "\n".join(lines) + "\n"


def ingest() -> int:
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def manifest(project: Project) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((project.root / "data/raw/manifest.json").read_text())
    return loaded


def test_a_file_an_address_a_database_and_an_archive_become_one_table(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.file("data/inbox/rows.csv", rows("inbox"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for day in (1, 2):
            archive.writestr(f"day/{day}.csv", rows(f"zip{day}"))
    project.file("data/inbox/days.zip", packed.getvalue())
    with sqlite3.connect(project.root / "reviews.db") as connection:
        connection.execute("CREATE TABLE reviews (body TEXT, stars TEXT, day TEXT)")
        connection.executemany(
            "INSERT INTO reviews VALUES (?, ?, ?)", [(f"sql text {at}", "ab"[at % 2], None) for at in range(4)]
        )
    connection.close()
    monkeypatch.setenv("REVIEWS_DB", f"sqlite:///{project.root}/reviews.db?password=hunter2")
    query = "SELECT body AS text, stars AS label, day FROM reviews"
    with serving(content=rows("web").encode(), etag='"first"') as server:
        project.params(
            ingest={
                "sources": [
                    {"path": "data/inbox/rows.csv", **MAPPED},
                    {"url": f"{server.url}?signature=hunter2", **MAPPED},
                    {"sql": "REVIEWS_DB", "query": query, **MAPPED},
                    {"path": "data/inbox/days.zip", "member": "day/*.csv", **MAPPED},
                ],
                **BASE,
            }
        )
        found = []
        for _ in range(2):
            assert ingest() == 0
            found.append([(project.root / out).read_bytes() for out in OUTS])
        assert found[0] == found[1]
        web = server.url
    origins = ["data/inbox/rows.csv", web, "sql:REVIEWS_DB", "data/inbox/days.zip:day/*.csv"]
    records = RawRecords.read(project.root / "data/raw/records.parquet")
    assert dict(records["source"].value_counts().iter_rows()) == dict(zip(origins, (6, 6, 4, 12), strict=True))
    assert records.filter(pl.col("source") == web)["timestamp"].to_list() == [f"2026-01-0{at}" for at in range(1, 7)]
    told = manifest(project)
    assert [entry["kind"] for entry in told["sources"]] == ["path", "url", "sql", "path"]
    assert [entry["origin"] for entry in told["sources"]] == origins
    assert [entry["rows_read"] for entry in told["sources"]] == [6, 6, 4, 12]
    assert told["sources"][1]["etag"] == '"first"'
    assert all(len(entry["sha256"]) == 64 for entry in told["sources"])
    assert told["rows_read"] == told["rows_kept"] == 28
    for out in OUTS:
        data = (project.root / out).read_bytes()
        assert b"hunter2" not in data
        assert str(project.root).encode() not in data


def test_texts_to_keep_clear_of_come_from_every_kind_of_source(project: Project) -> None:
    project.file("data/inbox/rows.csv", rows("inbox"))
    project.file("data/inbox/benchmark.txt", "one\n\ntwo\n")
    fsspec.filesystem("memory").pipe_file("/b/tests.jsonl", b'{"question": "three"}\n{"question": null, "n": 1}\n')
    project.params(
        ingest={
            "sources": [{"path": "data/inbox/rows.csv", **MAPPED}],
            "decontaminate_against": [
                {"path": "data/inbox/benchmark.txt"},
                {"url": "memory://b/tests.jsonl", "columns": {"text": "question"}},
            ],
            **BASE,
        }
    )
    assert ingest() == 0
    table = Decontamination.read(project.root / "data/raw/decontamination.parquet")
    web = "memory://b/tests.jsonl"
    assert table.rows() == [
        *((text, "data/inbox/benchmark.txt") for text in ("one", None, "two")),
        ("three", web),
        (None, web),
    ]
    assert [entry["rows_read"] for entry in manifest(project)["decontaminate_against"]] == [3, 2]
    assert manifest(project)["rows_read"] == 6, "they are no records"


def test_without_anything_named_the_outs_are_there_and_empty(project: Project) -> None:
    project.file("data/inbox/rows.csv", rows("inbox"))
    project.params(ingest={"sources": [{"path": "data/inbox/rows.csv", **MAPPED}], **BASE})
    assert ingest() == 0
    assert Decontamination.read(project.root / "data/raw/decontamination.parquet").is_empty()
    assert json.loads((project.root / "models/resources/resources.json").read_text()) == {}


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"max_download_mb": 1}, "is larger than 1 MiB\n  → if it is what you expect, raise ingest.max_download_mb"),
        ({"max_expanded_mb": 1}, "unpacks to more than 1 MiB\n  → if it is what you expect, raise ingest.max_expanded"),
    ],
)
def test_a_limit_of_params_is_kept(
    project: Project, capsys: pytest.CaptureFixture[str], limit: dict[str, int], told: str
) -> None:
    with zipfile.ZipFile(project.root / "data/inbox/a.zip", "w") as archive:
        archive.writestr("a.csv", rows("zip") + "x" * (2 << 20) + ",a,b\n")
    fsspec.filesystem("memory").pipe_file("/b/a.zip", (project.root / "data/inbox/a.zip").read_bytes())
    project.params(ingest={"sources": [{"url": "memory://b/a.zip", "member": "a.csv", **MAPPED}], **BASE, **limit})
    assert ingest() == 1
    assert told in capsys.readouterr().err
    assert list((project.root / ".attune/unpacked").iterdir()) == []


# ── accounts ────────────────────────────────────────────────────────────────────────────────────────────────────────

CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = st.sampled_from(["a", "b", " a ", "", "same", "\x00", "\x1e", "漢字", "x" * 100_000])
CELL = st.none() | WORDS | st.text(CHARACTERS, max_size=8) | st.integers() | st.floats() | st.booleans()
ROW = st.tuples(CELL, CELL, CELL)


def as_csv(table: list[tuple[Any, ...]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("text", "label", "day"), *table])
    return out.getvalue().encode()


def as_jsonl(table: list[tuple[Any, ...]]) -> bytes:
    return b"".join(json.dumps(dict(zip(("text", "label", "day"), row, strict=True))).encode() + b"\n" for row in table)


def as_sqlite(table: list[tuple[Any, ...]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with sqlite3.connect(Path(folder) / "a.db") as connection:
            connection.execute("CREATE TABLE t (text, label, day)")
            small = [[str(v) if isinstance(v, int) and abs(v) >= 2**63 else v for v in row] for row in table]
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", small)
        connection.close()
        return (Path(folder) / "a.db").read_bytes()


WRITERS = {"a.csv": as_csv, "a.jsonl": as_jsonl, "a.db": as_sqlite}


@given(
    st.lists(ROW, min_size=1, max_size=12),
    st.sampled_from(sorted(WRITERS)),
    st.none() | st.just({"a": "A", "1": "B", "true": "C"}),
    st.none() | st.integers(1, 4),
)
def test_rows_read_are_rows_kept_and_rows_rejected_whatever_they_hold(
    table: list[tuple[Any, ...]], name: str, labels: dict[str, str] | None, limit: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        file = Path("data/inbox") / name
        file.parent.mkdir(parents=True)
        file.write_bytes(WRITERS[name](table))
        patch.setenv("ATTUNE_TEST_DB", f"sqlite:///{file.resolve()}")
        query = {"sql": "ATTUNE_TEST_DB", "query": "SELECT * FROM t"}
        source = Source.model_validate((query if name == "a.db" else {"path": str(file)}) | MAPPED)
        try:
            tables, _ = received(source, Limits(), Path(folder), Path(folder))
        except AttuneError as error:
            assert "is empty in all" in str(error)
            return
        spool = Spool(Path(folder))
        for _, read in tables:
            for batch in read.iter_slices(5):
                spool.add(batch)
        assert spool.rows == len(table)
        selection = Selection(spool, labels, limit, 13)
        RawRecords.write_batches(selection.records(), Path("kept.parquet"))
        Rejected.write_batches(selection.rejected(), Path("rejected.parquet"))
        kept, rejected = RawRecords.read(Path("kept.parquet")), Rejected.read(Path("rejected.parquet"))
        assert kept.height + rejected.height == len(table) and kept.height <= (limit or len(table))
        assert pl.concat([kept["id"], rejected["id"]]).is_unique().all()
