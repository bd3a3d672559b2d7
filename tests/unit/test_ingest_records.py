"""From a source's columns to records: nothing is lost, an id outlives all but its text, labels are never guessed."""

import json
import random
import tempfile
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import SCRATCH, Project, frame_table

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.schemas import RawRecords, Rejected
from stages.ingest.__main__ import main
from stages.ingest.records import check_label_map, check_splits, map_labels, read_records
from stages.ingest.spool import Selection, Spool

Records = Any

TABLE = pl.DataFrame(
    {
        "body": ["good film", "bad film"],
        "stars": ["5", "1"],
        "film": ["A", "B"],
        "fold": ["train", "test"],
        "mood": ["happy", None],
        "day": ["2026-01-31 9:00", None],
    }
)


def to_records(table: pl.DataFrame, source: Source) -> pl.DataFrame:
    return pl.concat(read_records(frame_table(table, source.origin), source))


def spool_of(records: pl.DataFrame, size: int = 3) -> Spool:
    """The records, without their ids, in small batches. Their folder is removed when the spool is no longer used."""
    folder = tempfile.TemporaryDirectory()
    spool = Spool(Path(folder.name))
    weakref.finalize(spool, folder.cleanup)
    for batch in records.drop("id", strict=False).iter_slices(size):
        spool.add(batch)
    return spool


def with_ids(records: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(spool_of(records).batches())


def selected(records: pl.DataFrame, **how: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    selection = Selection(spool_of(records), **{"labels": None, "limit": None, "seed": 13, **how})
    kept, rejected = (
        pl.concat([empty.empty(), *frames], how="diagonal")
        for empty, frames in ((RawRecords, selection.records()), (Rejected, selection.rejected()))
    )
    assert (selection.kept, selection.reasons.total()) == (kept.height, rejected.height)
    return kept, rejected


def source(**columns: Any) -> Source:
    return Source(path="data/inbox/a.csv", columns={"text": "body", "label": "stars", **columns})


def test_columns_get_the_names_of_a_record_and_the_source_is_told() -> None:
    records = to_records(TABLE, source(group="film", split="fold", text_pair="mood", timestamp="day"))
    assert records.row(0, named=True) == {
        "text": "good film",
        "text_pair": "happy",
        "label": "5",
        "group": "A",
        "split": "train",
        "timestamp": "2026-01-31 9:00",
        "source": "data/inbox/a.csv",
        "extra": None,
    }


def test_extra_columns_are_carried_along_as_json() -> None:
    extra = to_records(TABLE, source(extra=["mood", "film"]))["extra"].to_list()
    assert [json.loads(text) for text in extra] == [{"mood": "happy", "film": "A"}, {"mood": None, "film": "B"}]


def test_a_source_may_have_one_label_for_all_its_rows() -> None:
    one = Source(path="data/inbox/a.csv", columns={"text": "body"}, label="good")
    assert to_records(TABLE, one)["label"].to_list() == ["good", "good"]
    lines = Source(path="data/inbox/a.txt", label="good")
    assert to_records(pl.DataFrame({"line": ["a", None]}), lines)["text"].to_list() == ["a", None]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": "bodi"}, "has no column 'bodi' (for text)\n  → did you mean 'body'?"),
        ({"label": "STARS"}, "has no column 'STARS' (for label)\n  → did you mean 'stars'?"),
        ({"group": "xyz"}, "has no column 'xyz' (for group)\n  → the columns are: body, stars, film, fold, mood, day"),
        ({"extra": ["mod"]}, "has no column 'mod' (for extra)\n  → did you mean 'mood'?"),
    ],
)
def test_a_missing_column_is_answered_with_the_likely_one(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(AttuneError) as raised:
        to_records(TABLE, source(**columns))
    assert str(raised.value) == f"data/inbox/a.csv {said}"


def test_a_text_column_without_any_text_is_an_error() -> None:
    table = TABLE.with_columns(body=pl.lit(None, pl.String))
    with pytest.raises(AttuneError, match=r"'body' is empty in all 2 rows\n.*body, stars, film, fold, mood, day"):
        to_records(table, source())


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def id_by_content(records: pl.DataFrame) -> dict[str, str]:
    return dict(with_ids(records).select("source", "id").iter_rows())


def varied(records_of: Records) -> pl.DataFrame:
    texts = ["one", "two", "two", "two", None, "", "漢字", "one two"]
    return records_of([{"text": text, "source": f"s{at}"} for at, text in enumerate(texts)])


def test_ids_do_not_depend_on_the_order_of_the_rows(records_of: Records) -> None:
    records = varied(records_of)
    expected = id_by_content(records)
    for seed in range(5):
        assert id_by_content(records.sample(fraction=1.0, shuffle=True, seed=seed)) == expected


def test_an_id_outlives_a_new_label_group_split_and_source(records_of: Records) -> None:
    records = records_of([{"text": "one"}, {"text": "two"}]).drop("id")
    other = records.with_columns(
        label=pl.lit("new"), group=pl.lit("g"), split=pl.lit("test"), source=pl.lit("s"), extra=pl.lit("{}")
    )
    assert with_ids(records)["id"].to_list() == with_ids(other)["id"].to_list()


def test_an_id_does_not_change_when_rows_are_added(records_of: Records) -> None:
    records = varied(records_of)
    more = pl.concat([records, records_of([{"text": "another", "source": "s9"}])])
    assert id_by_content(records).items() <= id_by_content(more).items()


def test_repeats_have_numbered_ids_and_no_two_rows_share_one(records_of: Records) -> None:
    ids = with_ids(varied(records_of))["id"]
    assert ids.is_unique().all()
    first, second, third = sorted(ids[1:4].to_list())
    assert (second, third) == (f"{first}.2", f"{first}.3")


def test_ids_tell_pairs_of_texts_apart(records_of: Records) -> None:
    pairs = [("ab", None), ("a", "b"), ("ab", ""), ("a", "b\x1f"), (None, "ab")]
    rows = records_of([{"text": text, "text_pair": pair} for text, pair in pairs])
    assert not with_ids(rows)["id"].str.contains(".", literal=True).any()


TEXT = st.none() | st.sampled_from(["a", "b", "\x1e", "\x1f", ""]) | st.text(max_size=5)


@given(st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["x", "y", None])), min_size=1, max_size=12), st.randoms())
def test_ids_are_unique_and_the_same_in_any_order_whatever_the_texts(
    rows: list[tuple[str | None, str | None, str | None]], rng: random.Random
) -> None:
    def ids(some: list[tuple[str | None, str | None, str | None]]) -> list[tuple[Any, ...]]:
        frame = pl.DataFrame(some, schema=dict.fromkeys(["text", "text_pair", "label"], pl.String), orient="row")
        nothing = pl.lit(None, pl.String)
        made = with_ids(
            frame.with_columns(group=nothing, split=nothing, timestamp=nothing, source=pl.lit("s"), extra=nothing)
        )
        assert made["id"].is_unique().all()
        assert made.select("text", "text_pair", "label").rows() == some
        return sorted(made.select("id", "text", "text_pair", "label").rows(), key=repr)

    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert ids(rows) == ids(shuffled)


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_map_labels_stay_as_they_stand_but_for_blanks_around_them(records_of: Records) -> None:
    kept, rejected = selected(records_of([{"text": "a", "label": " 5 "}, {"text": "b", "label": None}]))
    assert kept["label"].to_list() == ["5", None]
    assert rejected.is_empty()


def test_a_label_outside_the_map_is_rejected_with_the_reason(records_of: Records) -> None:
    records = records_of(
        [{"text": text, "label": label} for text, label in zip("abcd", ["1", " 5", "3", None], strict=True)]
    )
    kept, rejected = selected(records, labels={"1": "bad", "5": "good"})
    assert kept.select("text", "label").rows() == [("a", "bad"), ("b", "good"), ("d", None)]
    assert rejected.select("text", "label", "stage", "rule", "reason").rows() == [
        ("c", "3", "ingest", "unmapped_label", "label 3 is not in ingest.labels")
    ]


def test_labels_may_change_places_in_a_map(records_of: Records) -> None:
    kept, _ = map_labels(records_of([{"label": "0"}, {"label": "1"}]), {"0": "1", "1": "0"})
    assert kept["label"].to_list() == ["1", "0"]


@pytest.mark.parametrize(("labels", "found"), [(["good", "bad"], "bad, good"), ([None, None], "no labels")])
def test_a_map_that_matches_nothing_is_an_error_that_shows_both_sides(labels: list[str | None], found: str) -> None:
    with pytest.raises(AttuneError, match=f"ingest.labels maps 1, 5, but the data holds {found}"):
        check_label_map(Counter(label for label in labels if label), {"1": "bad", "5": "good"})


# ── official splits ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_official_splits_get_the_names_used_everywhere(records_of: Records) -> None:
    given_names = ["Train", " TEST", "valid", "val", "dev", "validation", None, "  "]
    records = records_of([{"text": "a", "split": name} for name in given_names])
    assert check_splits(records)["split"].to_list() == ["train", "test", *["validation"] * 4, None, None]


def test_a_value_that_is_no_split_is_an_error_with_value_and_count(records_of: Records) -> None:
    records = records_of([{"text": "a", "split": name} for name in ["train", "fold1", "fold2", "fold1"]])
    with pytest.raises(AttuneError, match="the split column holds fold1, fold2 in 3 rows"):
        check_splits(records)


# ── a limit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_keeps_that_many_rows_and_rejects_the_others_with_the_reason(records_of: Records) -> None:
    records = records_of([{"text": f"text {at}"} for at in range(50)])
    kept, rejected = selected(records, limit=20)
    assert (kept.height, rejected.height) == (20, 30)
    assert set(kept["id"]) | set(rejected["id"]) == set(with_ids(records)["id"])
    assert set(rejected["reason"]) == {"ingest.limit keeps 20 rows"}
    assert set(selected(records.reverse(), limit=20)[0]["id"]) == set(kept["id"])
    assert set(selected(records, limit=20, seed=14)[0]["id"]) != set(kept["id"])


@pytest.mark.parametrize("limit", [None, 50, 51])
def test_a_limit_that_is_not_reached_keeps_every_row(records_of: Records, limit: int | None) -> None:
    records = records_of([{"text": f"text {at}"} for at in range(50)])
    kept, rejected = selected(records, limit=limit)
    assert kept.select("text").equals(records.select("text"))
    assert rejected.is_empty()


# ── the whole stage ─────────────────────────────────────────────────────────────────────────────────────────────────


def ingest() -> int:
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_rows_read_are_rows_kept_and_rows_rejected_over_all_sources(project: Project) -> None:
    project.file("data/inbox/rows.csv", "text,label\ngood,1\nbad,0\nodd,9\n,1\nodd too,9\nno label,\nworse,0\n")
    project.file("data/inbox/more.jsonl", '{"body": "fine", "y": 1}\n{"body": "good", "y": 0}\n')
    project.file("data/inbox/lines.txt", "a line\n\nanother\n")
    project.params(
        ingest={
            "sources": [
                {"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}},
                {"path": "data/inbox/more.jsonl", "columns": {"text": "body", "label": "y"}},
                {"path": "data/inbox/lines.txt", "label": "1"},
            ],
            "labels": {0: "negative", 1: "positive"},
            "base_model": {"scratch": {"vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 1}},
        }
    )
    assert ingest() == 0
    records = RawRecords.read(project.root / "data/raw/records.parquet")
    rejected = Rejected.read(project.root / "data/raw/rejected.parquet")
    manifest = json.loads((project.root / "data/raw/manifest.json").read_text())
    assert records.height + rejected.height == 7 + 2 + 3
    assert (manifest["rows_read"], manifest["rows_kept"], manifest["rows_rejected"]) == (12, 10, 2)
    assert [entry["rows_read"] for entry in manifest["sources"]] == [7, 2, 3]
    assert manifest["rejected_because"] == {"label 9 is not in ingest.labels": 2}
    assert manifest["labels"] == {"negative": 3, "positive": 6}
    assert set(manifest["base_model"]["sha256"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    for out in (project.root / "data/raw").iterdir():
        assert str(project.root).encode() not in out.read_bytes(), "an out holds an absolute path"


def test_a_second_run_writes_the_same_bytes(project: Project) -> None:
    project.file("data/inbox/rows.csv", "text,label\n" + "good film,1\nbad film,0\n" * 3)
    found = []
    for _ in range(2):
        assert ingest() == 0
        outs = [file for folder in ("data/raw", "models/base") for file in sorted((project.root / folder).iterdir())]
        found.append({file.name: file.read_bytes() for file in outs})
    assert found[0] == found[1]
    assert len(found[0]) >= 6


@pytest.mark.parametrize("content", ["", "text,label\n", "text;label\na;1\n", "text,label\n,1\n", "text,label\na\n"])
def test_a_source_that_cannot_be_used_ends_the_stage_with_a_message(
    project: Project, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    project.file("data/inbox/rows.csv", content)
    project.file("data/raw/manifest.json", "the earlier one")
    assert ingest() == 1
    said = capsys.readouterr().err
    assert "ingest stopped: data/inbox/rows.csv" in said
    assert "Traceback" not in said
    assert (project.root / "data/raw/manifest.json").read_text() == "the earlier one"


def test_a_misspelt_key_of_the_label_map_is_an_error_and_a_superfluous_one_is_not(records_of: Records) -> None:
    records = records_of([{"text": str(at), "label": label} for at, label in enumerate(["lob", "tadel", "frage"] * 3)])
    with pytest.raises(AttuneError, match=r"'Lob', which no row has.*'lob'"):
        check_label_map(Counter(records["label"]), {"Lob": "good", "tadel": "bad"})
    labels = {"lob": "good", "tadel": "bad", "99": "other"}
    check_label_map(Counter(records["label"]), labels)
    kept, rejected = selected(records, labels=labels)
    assert (kept.height, rejected.height) == (6, 3)


def test_a_label_of_blanks_is_none() -> None:
    records = to_records(TABLE.with_columns(stars=pl.Series(["5", " \t"])), source())
    for labels in (None, {"5": "good"}):
        kept, rejected = selected(records, labels=labels)
        assert kept["label"].to_list() == ["good" if labels else "5", None]
        assert rejected.is_empty()


def test_labels_without_number_make_no_manifest_without_end(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = [f"{at}\x1b[31m\n" + "x" * 5000 for at in range(300)]
    rows = [{"text": f"text {at}", "label": "ab"[at % 2]} for at in range(6)]
    rows += [{"text": f"strange {at}", "label": label} for at, label in enumerate(strange)]
    project.file("data/inbox/a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    mapped = {"columns": {"text": "text", "label": "label"}}
    sources = [{"path": "data/inbox/a.jsonl", **mapped}]
    project.params(ingest={"sources": sources, "labels": {"a": "A", "b": "B"}, "base_model": {"scratch": SCRATCH}})
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    because = json.loads((project.root / "data/raw/manifest.json").read_text())["rejected_because"]
    assert len(because) == 201
    assert because["100 other reasons"] == 100
    assert sum(because.values()) == 300
    assert max(map(len, because)) < 120
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) < 200
    rejected = Rejected.read(project.root / "data/raw/rejected.parquet")
    assert sorted(rejected["label"]) == sorted(label.strip() for label in strange), "there they are whole"
