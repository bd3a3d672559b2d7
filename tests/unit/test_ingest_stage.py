"""The whole stage over sources of several kinds: each row accounted for, the same bytes again, no secret in outs."""

import json
import sqlite3
from pathlib import Path

import polars as pl
import pytest

from stages.common.schemas import Decontamination, RawRecords, Rejected
from stages.ingest.__main__ import main
from tests.projects import TINY, Project
from tests.unit.file_server import serving
from tests.unit.small_records import zipped

MAPPED = {"columns": {"text": "text", "label": "label", "timestamp": "day"}}
BASE = {"base_model": {"scratch": TINY}}
OUTS = ("data/raw", "models/base", "models/resources")


def rows(kind: str, count: int = 6) -> str:
    lines = [f"{kind} text {n},{'ab'[n % 2]},2026-01-{n + 1:02}" for n in range(count)]
    return "text,label,day\n" + "\n".join(lines) + "\n"


def ingest() -> int:
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def outs(project: Project) -> dict[Path, bytes]:
    return {file: file.read_bytes() for out in OUTS for file in sorted((project.root / out).iterdir())}


def test_a_file_an_address_a_database_and_an_archive_become_one_table(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.file("data/inbox/rows.csv", rows("inbox") + "odd,9,\nodd too,9,\n")
    project.file("data/inbox/lines.txt", "a line\n\nanother\n")
    project.file("data/inbox/benchmark.jsonl", '{"question": "three"}\n{"question": null, "n": 1}\n')
    project.file("data/inbox/days.zip", zipped({f"day/{day}.csv": rows(f"zip{day}") for day in (1, 2)}))
    with sqlite3.connect(project.root / "reviews.db") as connection:
        connection.execute("CREATE TABLE reviews (body TEXT, stars TEXT, day TEXT)")
        values = [(f"sql text {n}", "ab"[n % 2], None) for n in range(4)]
        connection.executemany("INSERT INTO reviews VALUES (?, ?, ?)", values)
    connection.close()
    monkeypatch.setenv("REVIEWS_DB", f"sqlite:///{project.root}/reviews.db?password=hunter2")
    query = "SELECT body AS text, stars AS label, day FROM reviews"
    with serving(content=rows("web").encode(), etag='"first"') as server:
        sources = [
            {"path": "data/inbox/rows.csv", **MAPPED},
            {"url": f"{server.url}?signature=hunter2", **MAPPED},
            {"sql": "REVIEWS_DB", "query": query, **MAPPED},
            {"path": "data/inbox/days.zip", "member": "day/*.csv", **MAPPED},
            {"path": "data/inbox/lines.txt", "label": "a"},
        ]
        against = [
            {"path": "data/inbox/lines.txt"},
            {"path": "data/inbox/benchmark.jsonl", "columns": {"text": "question"}},
        ]
        labels = {"a": "A", "b": "B"}
        project.params(ingest={"sources": sources, "decontaminate_against": against, "labels": labels, **BASE})
        assert ingest() == 0
        made = outs(project)
        assert ingest() == 0 and outs(project) == made, "a second run writes the same bytes"
        web = server.url
    origins = ["data/inbox/rows.csv", web, "sql:REVIEWS_DB", "data/inbox/days.zip:day/*.csv", "data/inbox/lines.txt"]
    records = RawRecords.read(project.root / "data/raw/records.parquet")
    assert dict(records["source"].value_counts().iter_rows()) == dict(zip(origins, (6, 6, 4, 12, 3), strict=True))
    assert records.filter(pl.col("source") == web)["timestamp"].to_list() == [f"2026-01-0{n}" for n in range(1, 7)]
    assert Rejected.read(project.root / "data/raw/rejected.parquet")["text"].to_list() == ["odd", "odd too"]
    manifest = json.loads((project.root / "data/raw/manifest.json").read_text())
    assert [entry["kind"] for entry in manifest["sources"]] == ["path", "url", "sql", "path", "path"]
    assert [entry["origin"] for entry in manifest["sources"]] == origins
    assert [entry["rows_read"] for entry in manifest["sources"]] == [8, 6, 4, 12, 3]
    assert manifest["sources"][1]["etag"] == '"first"'
    assert all(len(entry["sha256"]) == 64 for entry in manifest["sources"])
    assert (manifest["rows_read"], manifest["rows_kept"], manifest["rows_rejected"]) == (33, 31, 2)
    assert manifest["rejected_because"] == {"label 9 is not in ingest.labels": 2}
    assert manifest["labels"] == {"A": 17, "B": 14}
    assert set(manifest["base_model"]["sha256"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert [entry["rows_read"] for entry in manifest["decontaminate_against"]] == [3, 2]
    texts = Decontamination.read(project.root / "data/raw/decontamination.parquet")["text"]
    assert texts.to_list() == ["a line", None, "another", "three", None]
    for file, data in made.items():
        assert b"hunter2" not in data and str(project.root).encode() not in data, f"{file} holds a secret or a path"


PRIVATE = "I am {name}{n}@example.org, call +49 170 12345{n:02} or 555-123-45{n:02}, and this film number {n} was dull"


@pytest.mark.parametrize(
    ("columns", "label_map", "message"),
    [
        ({"text": "label", "label": "text"}, None, "the column 'text' (for label) has 40 different values in 40 rows"),
        ({"text": "label", "label": "text"}, {"a": "A"}, "then swap columns.text and columns.label"),
        (
            {"text": "text", "label": "id"},
            None,
            "is it an id or a number? columns.label names the column of the labels",
        ),
        ({"text": "text", "label": "label", "split": "text"}, None, "the split column holds"),
        ({"text": "text", "label": "label"}, {"a": "a", "c": "c"}, "unmapped_label took 20 of 20 rows"),
        ({"text": "body", "label": "label"}, None, "has no column 'body' (for text)"),
    ],
)
def test_no_text_and_no_address_of_the_data_is_in_a_message(
    project: Project, columns: dict[str, str], label_map: dict[str, str] | None, message: str
) -> None:
    texts = [PRIVATE.format(name="me", n=n) for n in range(40)]
    header = "text,label,id" if columns["text"] != "body" else f'"{texts[0]}",a,0'
    project.file(
        "data/inbox/rows.csv", "\n".join([header, *(f'"{text}",{"ab"[n % 2]},{n}' for n, text in enumerate(texts))])
    )
    labels = {"labels": label_map} if label_map else {}
    project.params(ingest={"sources": [{"path": "data/inbox/rows.csv", "columns": columns}], **labels, **BASE})
    done = project.python("-m", "stages.ingest")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and message in said and "Traceback" not in said
    assert "example.org" not in said and "12345" not in said and "555-123" not in said
    assert not any(text[20:90] in said for text in texts) and len(said) < 1500


def test_what_counts_as_a_missing_label_is_said(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.file("data/inbox/rows.csv", rows("inbox") + "x,None,\ny,-1,\nz,None,\n")
    project.file("data/inbox/nan.txt", "one\ntwo\nthree\n")
    sources = [{"path": "data/inbox/rows.csv", **MAPPED}, {"path": "data/inbox/nan.txt", "label": "nan"}]
    project.params(ingest={"sources": sources, "missing": ["-1"], **BASE})
    assert ingest() == 0
    manifest = json.loads((project.root / "data/raw/manifest.json").read_text())
    assert manifest["labels"] == {"a": 3, "b": 3, "nan": 3}
    assert manifest["labels_taken_as_missing"] == {"-1": 1, "None": 2}
    assert "warning: 2 labels 'None' count as missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            {"path": "data/inbox/days.zip", "member": "day/*.csv"},
            {"path": "data/inbox/days.zip", "member": "day/1.csv"},
        ),
        ({"path": "data/inbox/rows.csv"}, {"path": "data/inbox/link.csv"}),
        ({"path": "data/inbox/rows.csv"}, {"path": "data/inbox/rows.csv", "format": "csv"}),
        ({"path": "data/inbox/rows.csv"}, {"path": "./data//inbox/rows.csv"}),
    ],
)
def test_rows_that_two_sources_read_in_the_same_way_are_an_error(
    project: Project, capsys: pytest.CaptureFixture[str], first: dict[str, str], second: dict[str, str]
) -> None:
    project.file("data/inbox/rows.csv", rows("inbox"))
    project.file("data/inbox/days.zip", zipped({f"day/{day}.csv": rows(f"zip{day}") for day in (1, 2)}))
    (project.root / "data/inbox/link.csv").symlink_to("rows.csv")
    project.params(ingest={"sources": [{**first, **MAPPED}, {**second, **MAPPED}], **BASE})
    assert ingest() == 1
    assert ": entries 1 and 2 of the sources are the same rows, counted twice" in capsys.readouterr().err


def test_rows_that_params_leave_out_are_counted_and_their_labels_do_not_matter(project: Project) -> None:
    answers = ["accept"] * 6 + ["reject", "ignore"]
    lines = [{"t": f"{answer} {n}", "label": ["a", "b"][n % 2], "answer": answer} for n, answer in enumerate(answers)]
    lines[6]["label"], lines[7]["label"] = "A", "{}"
    project.file("data/inbox/prodigy.jsonl", "\n".join(map(json.dumps, lines)))
    folds = "".join(f"film {n},{'ab'[n % 2]},train\n" for n in range(6)) + "c,-1,unsupervised\nd,-1,unsupervised\n"
    project.file("data/inbox/imdb.csv", f"t,label,fold\n{folds}")
    columns = {"text": "t", "label": "label"}
    sources = [
        {"path": "data/inbox/prodigy.jsonl", "columns": columns, "where": {"answer": "accept"}},
        {"path": "data/inbox/imdb.csv", "columns": {**columns, "split": "fold"}},
    ]
    project.params(ingest={"sources": sources, "split_names": {"unsupervised": "drop"}, **BASE})
    assert ingest() == 0
    manifest = json.loads((project.root / "data/raw/manifest.json").read_text())
    assert (manifest["rows_read"], manifest["rows_kept"], manifest["rows_rejected"]) == (16, 12, 4)
    because = {"ingest.split_names drops unsupervised": 2, "where: answer is not accept": 2}
    assert manifest["rejected_because"] == because and manifest["labels"] == {"a": 6, "b": 6}
    rejected = Rejected.read(project.root / "data/raw/rejected.parquet")
    assert rejected["text"].to_list() == ["reject 6", "ignore 7", "c", "d"]


def test_a_source_that_cannot_be_used_ends_the_stage_with_a_message(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.file("data/inbox/rows.csv", "text,label\na\n")
    project.file("data/raw/manifest.json", "the earlier one")
    assert ingest() == 1
    message = capsys.readouterr().err
    assert "ingest stopped: data/inbox/rows.csv" in message and "Traceback" not in message
    assert (project.root / "data/raw/manifest.json").read_text() == "the earlier one"


@pytest.mark.parametrize("limit", ["max_download_mb", "max_expanded_mb"])
def test_a_limit_of_params_is_kept(project: Project, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    with serving(content=zipped({"a.csv": rows("zip") + "x" * (2 << 20) + ",a,b\n"})) as server:
        archived = {"url": server.url.replace("rows.csv", "a.zip"), "member": "a.csv", **MAPPED}
        project.params(ingest={"sources": [archived], **BASE, limit: 1})
        assert ingest() == 1
    assert f"than 1 MiB\n  → if it is what you expect, raise ingest.{limit}" in capsys.readouterr().err
    assert list((project.root / ".attune/unpacked").iterdir()) == []
