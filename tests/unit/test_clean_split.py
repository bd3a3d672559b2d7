"""Three splits that share no group, hold every label, and hardly change when the data grows."""

import json
import random
import re
import sys
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stages.clean.split import assign_folds, read_times, split_records
from stages.clean.split_report import official_warnings
from stages.common.errors import AttuneError
from stages.common.params.clean import Split
from stages.common.schemas import SPLITS, CleanRecords, Decontamination, RawRecords, Rejected
from tests.projects import Project
from tests.unit.small_records import FILM_WORDS, make_records

Rows = list[dict[str, str | None]]


def split_of_each(records: pl.DataFrame) -> dict[str, str]:
    """The split of each row, by id."""
    return {row: name for name, rows in split_records(records, Split(), 13).items() for row in rows["id"]}


def labelled(counts: dict[str, int], **others: str | None) -> pl.DataFrame:
    """Rows under these labels, each a group of its own unless the other columns say otherwise."""
    names = [(label, f"{others} {label} {number}") for label, count in counts.items() for number in range(count)]
    return make_records([{"id": name, "label": label, "text": "t", **others} for label, name in names])


def official(*splits: str) -> pl.DataFrame:
    return pl.concat([labelled({"a": 20, "b": 20}, split=name) for name in splits])


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.3, 0.2), (0.01, 0.4)])
def test_the_shares_are_met_for_each_label(validation: float, test: float) -> None:
    counts = {"a": 1000, "b": 300, "c": 200}
    splits = split_records(labelled(counts), Split(validation=validation, test=test), seed=13)
    for label, count in counts.items():
        assert abs(splits["validation"].filter(label=label).height - validation * count) <= 1
        assert abs(splits["test"].filter(label=label).height - test * count) <= 1


def test_a_row_more_moves_hardly_any_other_row() -> None:
    records = labelled({"a": 500, "b": 500})
    before, folds = split_of_each(records), assign_folds(records, 5, 13)
    for number in range(8):
        more = pl.concat([records, make_records([{"id": f"new{number}", "text": "t", "label": "a"}])])
        after = split_of_each(more)
        assert sum(after[row] != before[row] for row in before) <= 2
        assert (assign_folds(more, 5, 13)[:-1] != folds).sum() <= 5


def test_of_three_groups_the_largest_is_trained_on() -> None:
    rows = [{"text": "t", "group": f"g{index % 3 if index < 6 else 0}", "label": "a"} for index in range(50)]
    rows += [{"text": "t", "label": "b"} for _ in range(9)]
    splits = split_records(make_records(rows), Split(), 13)
    assert splits["train"].filter(group="g0").height == 46
    assert all(set(rows["label"]) == {"a", "b"} for rows in splits.values())


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (labelled({}), "there is not one labelled row"),
        (labelled({"a": 50}), "there is only the label 'a', and a classifier needs two"),
        (labelled({"a": 50, "b": 2}), r"too few rows for three splits under the label 'b' \(2\)"),
        (labelled({"a": 50, "b": 50}, group="one"), "the validation split would be empty"),
        (official(*SPLITS).remove(split="test", label="b"), "test split .* would hold no row with the label 'b'"),
    ],
)
def test_rows_that_cannot_fill_three_splits_are_an_error_that_says_why(records: pl.DataFrame, message: str) -> None:
    with pytest.raises(AttuneError, match=message):
        split_records(records, Split(), seed=13)


@pytest.mark.parametrize(
    ("kept", "taken", "said"),
    [
        (
            {},
            {"length": 118, "unlabelled": 2},
            "length took 118 of 120 rows (why me), unlabelled 2: widen clean.length",
        ),
        (
            {"a": 30},
            {"near_duplicate": 7},
            "near_duplicate took 7 of 7 rows (why me): raise clean.near_duplicates.thres",
        ),
        (
            {"a": 30, "b": 2},
            {"language": 9},
            "language took 9 of 11 rows (why me): add their language to clean.languages",
        ),
        ({"a": 30, "b": 2}, {}, "add rows, or leave the label out"),
    ],
)
def test_the_rules_that_took_the_rows_are_named(kept: dict[str, int], taken: dict[str, int], said: str) -> None:
    rejected = [
        Rejected.of(labelled({"b": count}), "clean", rule, "why me" if rule != "unlabelled" else "no label")
        for rule, count in taken.items()
    ]
    with pytest.raises(AttuneError) as error:
        split_records(labelled(kept), Split(), 13, pl.concat([Rejected.empty(), *rejected]))
    assert error.value.fix.startswith(said)


def test_what_an_official_split_leaves_out_is_drawn_from_the_other_rows() -> None:
    fixed, free = official("test"), labelled({"a": 200, "b": 200})
    placed = split_of_each(pl.concat([fixed, free]))
    assert {placed[row] for row in fixed["id"]} == {"test"}
    assert {placed[row] for row in free["id"]} == {"train", "validation"}
    assert abs([*placed.values()].count("validation") - 40) <= 2


@pytest.mark.parametrize(("there", "drawn"), [(("train", "test"), "validation"), (("train", "validation"), "test")])
@pytest.mark.parametrize("by", ["random", "time"])
def test_what_a_complete_official_split_lacks_is_drawn_from_train(there: tuple[str, str], drawn: str, by: str) -> None:
    rows = [
        {"label": "ab"[n % 2], "text": "t", "split": there[n // 200], "group": f"{there[n // 200]} {n // 4}"}
        for n in range(240)
    ]
    records = make_records(rows)
    splits = split_records(records, Split.model_validate({"by": by}), 13)
    official = dict(records.select("id", "split").iter_rows())
    assert {official[row] for row in splits[there[1]]["id"]} == {there[1]} and splits[there[1]].height == 40
    assert {official[row] for row in splits[drawn]["id"]} == {"train"} and splits[drawn].height == 20
    assert not set(splits["train"]["group"]) & set(splits[drawn]["group"])
    counts = pl.DataFrame({"split": ["test", "train"], "len": [1200, 200], "unlabelled": [1160, 0]})
    assert official_warnings(counts, records.filter(split="train")["id"], splits) == [
        "test: 1,160 of the 1,200 rows that are officially there have no label, and are rejected",
        f"{drawn}: no official row is left for it, so 20 were drawn from the official train",
    ]


ROW = st.fixed_dictionaries(
    {
        "label": st.sampled_from("ab"),
        "group": st.none() | st.sampled_from([f"g{index}" for index in range(8)]) | st.text(max_size=3),
        "split": st.none() | st.none() | st.sampled_from(SPLITS),
        "timestamp": st.none() | st.sampled_from([f"2024-0{month}-11" for month in range(1, 10)]),
        "text": st.just("t"),
    }
)
SHARE = st.floats(0.01, 0.4)


def newest(rows: pl.DataFrame) -> list[str]:
    """The newest date of each group; a row without one is its own."""
    return [*rows.group_by(pl.coalesce("group", "id")).agg(pl.col("timestamp").max())["timestamp"].drop_nulls()]


def torn(rows: pl.DataFrame) -> set[str]:
    """The groups that are in several splits."""
    splits = rows.drop_nulls(["group", "split"]).group_by("group").agg(pl.col("split").n_unique())
    return set(splits.filter(pl.col("split") > 1)["group"])


@pytest.mark.parametrize(("by", "folds"), [("random", 0), ("random", 3), ("time", 3)])
@given(st.lists(ROW, min_size=6, max_size=40), SHARE, SHARE, st.integers(0, 99), st.randoms(use_true_random=False))
def test_any_data_is_split_without_loss_and_without_a_shared_group_or_refused(
    by: Any, folds: int, rows: Rows, validation: float, test: float, seed: int, rng: random.Random
) -> None:
    records = make_records([{**row, "split": None} for row in rows] if by == "time" else rows)
    params = Split(by=by, validation=validation, test=test, folds=folds)
    order = rng.sample(range(records.height), records.height)
    try:
        splits = split_records(records, params, seed)
    except AttuneError as error:
        with pytest.raises(AttuneError, match=re.escape(str(error))):
            split_records(records[order], params, seed)
        return
    assert sorted(row for part in splits.values() for row in part["id"]) == sorted(records["id"])
    for name, part in splits.items():
        assert part.columns == CleanRecords.columns()
        drawn = name == "train" and records["split"].drop_nulls().n_unique() < 3
        assert drawn or set(records.filter(split=name)["id"]) <= set(part["id"])
        assert set(part["label"]) == set(records["label"])
    placed = pl.concat(part.with_columns(split=pl.lit(name)) for name, part in splits.items())
    assert torn(placed) <= torn(records), "no group is in two splits, unless the source has it so"
    if by == "time":
        for before, after in pairwise(filter(None, (newest(splits[name]) for name in SPLITS))):
            assert max(before) <= min(after)
    outside = pl.concat([splits["train"], splits["validation"]])
    assert {*outside["fold"]} == ({*range(folds)} or {None})
    assert {*splits["test"]["fold"]} == {None}
    assert (outside.drop_nulls("group").group_by("group").agg(pl.col("fold").n_unique())["fold"] == 1).all()
    again = split_records(records[order], params, seed)
    assert all(again[name].equals(splits[name]) for name in SPLITS)


@given(st.integers(3, 40), st.integers(3, 40), SHARE, SHARE, st.integers(0, 99))
def test_rows_without_groups_are_never_refused_from_three_a_label_on(
    a: int, b: int, validation: float, test: float, seed: int
) -> None:
    assume(validation + test <= 0.8)
    splits = split_records(labelled({"a": a, "b": b}), Split(validation=validation, test=test), seed)
    assert all(set(rows["label"]) == {"a", "b"} for rows in splits.values())


def test_the_newest_rows_are_test_those_before_validation_and_of_the_same_time_the_seed_decides() -> None:
    days = [str(date(2024, 1, 1) + timedelta(day)) for day in random.Random(5).sample(range(300), 300)]
    records = make_records([{"text": "t", "timestamp": day} for day in days])
    splits, days = split_records(records, Split(by="time", validation=0.1, test=0.2), 13), sorted(days)
    assert [sorted(splits[name]["timestamp"]) for name in SPLITS] == [days[:210], days[210:240], days[240:]]
    same = make_records([{"text": "t", "timestamp": "2024"}] * 200)
    first, second = (split_records(same, Split(by="time"), seed)["test"]["id"] for seed in (13, 14))
    assert len(first) == len(second) == 20 and set(first) != set(second)


@pytest.mark.parametrize("folds", [2, 7])
def test_folds_have_the_same_label_shares_and_sizes(folds: int) -> None:
    records = labelled({"a": 700, "b": 140, "c": 71})
    placed = records.with_columns(fold=assign_folds(records, folds, 13))
    for label in "abc":
        counts = placed.filter(label=label)["fold"].value_counts()["count"]
        assert len(counts) == folds and counts.max() - counts.min() <= 1


def test_a_large_group_leaves_rows_for_every_other_fold_and_too_few_groups_are_an_error() -> None:
    records = pl.concat([labelled({"a": 600}, group="huge"), labelled({"a": 400})])
    counts = assign_folds(records, 5, 13).value_counts()["count"].sort()
    assert len(counts) == 5 and counts[-1] >= 600 and counts[0] > 30
    with pytest.raises(AttuneError, match=r"asks for 10 folds, but the rows outside test fill 8"):
        assign_folds(labelled({"a": 8}), 10, 13)


def time_of(text: str | None) -> datetime | None:
    return read_times(pl.Series([text], dtype=pl.String))["time"][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019", "2019-01-01"),
        (" 2019-05-03 ", "2019-05-03"),
        ("20190503T123015Z", "2019-05-03T12:30:15"),
        ("2019-05-03T12:30:15.123456789+02:00", "2019-05-03T10:30:15.123456"),
        ("2019-05-03 12:30:00 UTC", "2019-05-03T12:30"),
        ("2019-12-31T23:30 -01", "2020-01-01T00:30"),
        ("1556886615.25", "2019-05-03T12:30:15.250000"),
        ("1556886615250", "2019-05-03T12:30:15.250000"),
        ("2013200000", "2033-10-17T22:13:20"),  # month 32: no date
    ],
)
def test_a_clear_time_is_read_as_utc(text: str, expected: str) -> None:
    assert time_of(text) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "03/05/2019",  # the third of May, or the fifth of March
        "201905",  # a month, or a day
        "2019-02-30",
        "2019-05-03T12:30+99:00",
        "2019-05-03T12:30 CET",  # three letters name several zones
        "20240503123015",  # Unix milliseconds of the year 2611, or a date with its time of day
        "9999-12-31T23:59:59-18:00",  # the year 10000
    ],
)
def test_what_is_unclear_is_not_guessed(text: str | None) -> None:
    assert time_of(text) is None


def test_the_stage_accounts_for_every_row(project: Project) -> None:
    rng = random.Random(4)
    texts = [" ".join(f"{word}{rng.randrange(30)}" for word in rng.choices(FILM_WORDS, k=8)) for _ in range(80)]
    rows: Rows = [{"text": text} for text in texts]
    rows += [{"text": text} for text in (None, "<br> \u200b", "no", "caf&eacute; &amp; more text than enough")]
    rows += [{"text": "a label is missing here", "label": None}, {**rows[0], "label": "x"}]
    RawRecords.write(make_records(rows), project.root / "data/raw/records.parquet")
    for table, name in ((Rejected, "rejected"), (Decontamination, "decontamination")):
        table.write(table.empty(), project.root / f"data/raw/{name}.parquet")
    project.run(sys.executable, "-m", "stages.clean")
    tables = [CleanRecords.read(project.root / f"data/clean/{name}.parquet") for name in SPLITS]
    rejected = Rejected.read(project.root / "data/clean/rejected.parquet")
    report = json.loads((project.root / "reports/clean.json").read_text())
    assert sum(table.height for table in tables) == report["rows_kept"] == len(rows) - rejected.height
    assert report["rejected_by_rule"]["conflicting_labels"] == 2
    assert rejected.filter(rule="empty_text")["text"].to_list() == [None, "<br> \u200b"], "as it came"
    assert report["texts_changed_by"]["entities"] == 1
    warning = json.loads((project.root / "reports/splits.json").read_text())["warnings"][-1]
    assert warning.startswith("no row of the label x is left: conflicting_labels took 1 of 1 rows (the same text has")
