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

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.readers.table import Table
from stages.common.schemas import RawRecords, Rejected
from stages.ingest.records import check_label_map, check_splits, read_records
from stages.ingest.spool import Spool
from tests.unit.small_records import make_records

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
    return pl.concat(read_records(Table(source.origin, table.columns, [table]), source))


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


def selected(
    records: pl.DataFrame, labels: dict[str, str] | None = None, limit: int | None = None, seed: int = 13
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that are kept, and those that are rejected."""
    pairs = zip(*spool_of(records).split(labels, limit, seed), strict=True)
    kept, rejected = (
        pl.concat([empty.empty(), *frames], how="diagonal")
        for empty, frames in zip((RawRecords, Rejected), pairs, strict=True)
    )
    assert kept.height + rejected.height == records.height
    return kept, rejected


def source(**columns: Any) -> Source:
    return Source(path="data/inbox/a.csv", columns={"text": "body", "label": "stars", **columns})


def test_columns_get_the_names_of_a_record_and_the_source_is_told() -> None:
    mapped = source(group="film", split="fold", text_pair="mood", timestamp="day", extra=["mood", "film"])
    records = to_records(TABLE, mapped)
    assert records.row(0, named=True) == {
        "text": "good film",
        "text_pair": "happy",
        "label": "5",
        "group": "A",
        "split": "train",
        "timestamp": "2026-01-31 9:00",
        "source": "data/inbox/a.csv",
        "extra": '{"mood":"happy","film":"A"}',
    }
    assert json.loads(records["extra"][1]) == {"mood": None, "film": "B"}
    lines = Source(path="data/inbox/a.txt", label="good")
    records = to_records(pl.DataFrame({"line": ["a", None]}), lines)
    assert records.select("text", "label").rows() == [("a", "good"), (None, "good")]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": "bodi"}, "has no column 'bodi' (for text)\n  → did you mean 'body'?"),
        ({"label": "STARS"}, "has no column 'STARS' (for label)\n  → did you mean 'stars'?"),
        ({"group": "xyz"}, "has no column 'xyz' (for group)\n  → the columns are: body, stars, film, fold, mood, day"),
        ({"extra": ["mod"]}, "has no column 'mod' (for extra)\n  → did you mean 'mood'?"),
    ],
)
def test_a_missing_or_empty_column_is_answered_with_the_likely_ones(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(AttuneError) as raised:
        to_records(TABLE, source(**columns))
    assert str(raised.value) == f"data/inbox/a.csv {said}"
    with pytest.raises(AttuneError, match=r"'body' is empty in all 2 rows\n.*body, stars, film, fold, mood, day"):
        to_records(TABLE.with_columns(body=pl.lit(None, pl.String)), source())


def id_by_source(records: pl.DataFrame) -> dict[str, str]:
    return dict(with_ids(records).select("source", "id").iter_rows())


def test_an_id_outlives_new_rows_and_a_new_label_group_split_and_source() -> None:
    texts = ["one", "two", "two", "two", None, "", "漢字", "one two"]
    records = make_records([{"text": text, "source": f"s{at}"} for at, text in enumerate(texts)])
    more = pl.concat([records, make_records([{"text": "another", "source": "s9"}])])
    assert id_by_source(records).items() <= id_by_source(more).items()
    other = records.with_columns(
        label=pl.lit("new"), group=pl.lit("g"), split=pl.lit("test"), source=pl.lit("s"), extra=pl.lit("{}")
    )
    ids = with_ids(records)["id"]
    assert sorted(ids) == sorted(with_ids(other)["id"])
    first, second, third = sorted(ids[1:4].to_list())
    assert (second, third) == (f"{first}.2", f"{first}.3")


def test_ids_tell_pairs_of_texts_apart() -> None:
    pairs = [("ab", None), ("a", "b"), ("ab", ""), ("a", "b\x1f"), (None, "ab")]
    rows = make_records([{"text": text, "text_pair": pair} for text, pair in pairs])
    assert not with_ids(rows)["id"].str.contains(".", literal=True).any()


TEXT = st.none() | st.sampled_from(["a", "b", "\x1e", "\x1f", ""]) | st.text(max_size=5)


@given(st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["x", "y", None])), min_size=1, max_size=12), st.randoms())
def test_ids_are_unique_and_the_same_in_any_order_whatever_the_texts(
    rows: list[tuple[str | None, str | None, str | None]], rng: random.Random
) -> None:
    def ids(some: list[tuple[str | None, str | None, str | None]]) -> list[tuple[Any, ...]]:
        frame = pl.DataFrame(some, schema=dict.fromkeys(["text", "text_pair", "label"], pl.String), orient="row")
        nothing = dict.fromkeys(["group", "split", "timestamp", "extra"], pl.lit(None, pl.String))
        made = with_ids(frame.with_columns(source=pl.lit("s"), **nothing))
        assert made["id"].is_unique().all()
        assert made.select("text", "text_pair", "label").rows() == some
        return sorted(made.select("id", "text", "text_pair", "label").rows(), key=repr)

    assert ids(rows) == ids(rng.sample(rows, len(rows)))


LABEL = st.none() | st.sampled_from(["a", " b", "", "\x00"]) | st.text(max_size=3)


@given(
    st.lists(st.tuples(TEXT, LABEL), min_size=1, max_size=12),
    st.sampled_from([None, {"a": "A", "b": "a"}]),
    st.none() | st.integers(1, 4),
)
def test_each_row_is_kept_or_rejected_whatever_it_holds(
    rows: list[tuple[str | None, str | None]], labels: dict[str, str] | None, limit: int | None
) -> None:
    records = make_records([{"text": text, "label": label} for text, label in rows])
    kept, rejected = selected(records.with_columns(timestamp=pl.lit(None, pl.String)), labels, limit)
    assert kept.height <= (limit or len(rows))
    assert pl.concat([kept["id"], rejected["id"]]).is_unique().all()
    assert labels is None or set(kept["label"]) <= {None, "A", "a"}


def test_without_a_map_labels_stay_as_they_stand_but_for_blanks_around_them() -> None:
    kept, rejected = selected(make_records([{"label": " 5 "}, {"label": None}, {"label": " \t"}]))
    assert kept["label"].to_list() == ["5", None, None]
    assert rejected.is_empty()


def test_a_label_outside_the_map_is_rejected_with_the_reason() -> None:
    labels = ["1", " 5", "3", None, "\x1b" + "x" * 500]
    records = make_records([{"text": text, "label": label} for text, label in zip("abcde", labels, strict=True)])
    kept, rejected = selected(records, labels={"1": "5", "5": "1"})
    assert kept.select("text", "label").rows() == [("a", "5"), ("b", "1"), ("d", None)]
    assert rejected.select("text", "label", "stage", "rule").rows() == [
        ("c", "3", "ingest", "unmapped_label"),
        ("e", labels[-1], "ingest", "unmapped_label"),
    ]
    assert rejected["reason"][0] == "label 3 is not in ingest.labels"
    assert "\x1b" not in rejected["reason"][1] and len(rejected["reason"][1]) < 120


@pytest.mark.parametrize(
    ("labels", "counts", "told"),
    [
        ({"1": "bad", "5": "good"}, ["good", "bad"], "ingest.labels maps 1, 5, but the data holds bad, good"),
        ({"1": "bad", "5": "good"}, [], "ingest.labels maps 1, 5, but the data holds no labels"),
        ({"Lob": "good", "tadel": "bad"}, ["lob", "tadel", "frage"], "'Lob', which no row has.*'lob'"),
    ],
)
def test_a_map_that_does_not_fit_the_data_is_an_error_that_shows_both_sides(
    labels: dict[str, str], counts: list[str], told: str
) -> None:
    with pytest.raises(AttuneError, match=told):
        check_label_map(Counter(counts), labels)
    check_label_map(Counter(["lob", "tadel", "frage"]), {"lob": "good", "tadel": "bad", "99": "other"})


def test_official_splits_get_the_names_used_everywhere() -> None:
    names = ["Train", " TEST", "valid", "val", "dev", "validation", None, "  "]
    records = make_records([{"split": name} for name in names])
    assert check_splits(records)["split"].to_list() == ["train", "test", *["validation"] * 4, None, None]
    with pytest.raises(AttuneError, match="the split column holds fold1, fold2 in 3 rows"):
        check_splits(make_records([{"split": name} for name in ["train", "fold1", "fold2", "fold1"]]))


def test_a_limit_keeps_that_many_rows_and_rejects_the_others_with_the_reason() -> None:
    records = make_records([{"text": f"text {at}"} for at in range(50)])
    kept, rejected = selected(records, limit=20)
    assert kept.height == 20
    assert set(kept["id"]) | set(rejected["id"]) == set(with_ids(records)["id"])
    assert set(rejected["reason"]) == {"ingest.limit keeps 20 rows"}
    assert set(selected(records.reverse(), limit=20)[0]["id"]) == set(kept["id"])
    assert set(selected(records, limit=20, seed=14)[0]["id"]) != set(kept["id"])
    for most in (50, 51):
        assert selected(records, limit=most)[0].select("text").equals(records.select("text"))
