"""Three splits that share no group, hold every label, and hardly change when the data grows."""

import json
import random
import re
import sys
from collections import Counter
from datetime import date, datetime, timedelta
from hashlib import sha256
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
DEFAULT = Split()


def splits_of(
    records: pl.DataFrame, params: Split, seed: int, rejected: pl.DataFrame | None = None
) -> dict[str, pl.DataFrame]:
    """The splits of records whose strata are their labels."""
    return split_records(records.with_columns(stratum=pl.col("label")), params, seed, rejected)


def folds_of(records: pl.DataFrame, folds: int, seed: int) -> pl.Series:
    return assign_folds(records.with_columns(stratum=pl.col("label")), folds, seed)


def split_of_each(records: pl.DataFrame, params: Split = DEFAULT, seed: int = 13) -> dict[str, str]:
    """The split of each row, by id."""
    return {row: name for name, rows in splits_of(records, params, seed).items() for row in rows["id"]}


def hashed(row: str, seed: str = "13") -> float:
    """Where the hash of a row without a group lies, from 0 to 1."""
    return int(sha256(f"{seed} row {row}".encode()).hexdigest()[:16], 16) / 2**64


def labelled(counts: dict[str, int], **others: str | None) -> pl.DataFrame:
    """Rows under these labels, each a group of its own unless the other columns say otherwise."""
    names = [(label, f"{others} {label} {number}") for label, count in counts.items() for number in range(count)]
    return make_records([{"id": name, "label": label, "text": "t", **others} for label, name in names])


def official(*splits: str) -> pl.DataFrame:
    return pl.concat([labelled({"a": 20, "b": 20}, split=name) for name in splits])


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.3, 0.2), (0.01, 0.4)])
def test_shares_are_met_but_for_chance_and_so_are_folds(validation: float, test: float) -> None:
    params = Split(validation=validation, test=test, folds=7)
    splits = splits_of(labelled({"a": 7000, "b": 2000, "c": 1000}), params, 13)
    outside = pl.concat([splits["train"], splits["validation"]])
    drawn = [(splits["test"], test, 10_000), (splits["validation"], validation, 10_000)]
    drawn += [(outside.filter(fold=fold), 1 / 7, outside.height) for fold in range(7)]
    for rows, share, of in drawn:
        assert abs(rows.height - share * of) <= 3 * (of * share * (1 - share)) ** 0.5


def test_fourteen_labels_put_right_move_no_row_to_another_split_or_fold() -> None:
    records = labelled({"a": 300, "b": 200, "c": 100})
    wrong = pl.Series(random.Random(5).sample(range(records.height), 14))
    mended = records.with_columns(label=records["label"].scatter(wrong, ["abc"[row % 3] for row in wrong]))
    assert (mended["label"] != records["label"]).sum() >= 7
    assert split_of_each(mended) == split_of_each(records)
    assert folds_of(mended, 5, 13).equals(folds_of(records, 5, 13))


COUNTS = st.fixed_dictionaries({"a": st.integers(4, 40), "b": st.integers(4, 9), "c": st.integers(4, 30)})


@given(COUNTS, st.sampled_from([0.05, 0.1, 0.2, 0.4]), st.sampled_from([0.05, 0.1, 0.4]), st.randoms())
def test_the_hash_of_a_row_decides_unless_its_label_is_short_of_rows(
    counts: dict[str, int], validation: float, test: float, rng: random.Random
) -> None:
    """A row that comes, goes or is relabelled moves none but a few of its labels, old and new, where they are short."""
    params, records = Split(validation=validation, test=test), labelled(counts)
    short = set()

    def placed(records: pl.DataFrame) -> dict[str, str]:
        splits, by_hash = split_of_each(records, params), {}
        for row in records["id"]:
            u = hashed(row)
            by_hash[row] = "test" if u < test else "validation" if u < test + validation else "train"
        labels = dict(records.select("id", "label").iter_rows())
        for label, rows in Counter(labels.values()).items():
            own = [row for row in labels if labels[row] == label]
            enough = {"train": 1, "test": max(1, test * rows // 2), "validation": max(1, validation * rows // 2)}
            before, after = (Counter(place[row] for row in own) for place in (by_hash, splits))
            if any(before[name] < least for name, least in enough.items()):
                short.add(label)
                assert min(after[name] for name in SPLITS) > 0
            else:
                assert all(splits[row] == by_hash[row] for row in own)
        return splits

    row = rng.randrange(records.height)
    old, new = records["label"][row], rng.choice("abc")
    relabelled = records.with_columns(label=records["label"].scatter(row, new))
    first = placed(records)
    for others in (relabelled, records.filter(pl.col("id") != records["id"][row])):
        second = placed(others)
        moved = [id for id in second if second[id] != first[id] and id != records["id"][row]]
        of = Counter(records.filter(pl.col("id").is_in(moved))["label"])
        assert set(of) <= {old, new} & short and all(count <= 4 for count in of.values())


def test_which_of_several_rows_with_the_same_texts_is_left_does_not_matter() -> None:
    records = labelled({"a": 200, "b": 200})
    repeats = records.with_columns(id=pl.col("id") + ".2")
    assert split_of_each(repeats) == {f"{row}.2": name for row, name in split_of_each(records).items()}
    assert folds_of(repeats, 5, 13).equals(folds_of(records, 5, 13))


SIZES = st.lists(st.integers(1, 6), min_size=4, max_size=10)


@given(st.tuples(SIZES, SIZES, SIZES), st.randoms())
def test_a_relabelled_row_of_a_group_moves_no_other_group_unless_that_changes_the_commonest_label_of_its_own(
    sizes: tuple[list[int], ...], rng: random.Random
) -> None:
    rows = [
        {"text": "t", "label": label, "group": f"{label}{number}"}
        for label, groups in zip("abc", sizes, strict=True)
        for number, size in enumerate(groups)
        for _ in range(size)
    ]
    records, row, new = make_records(rows), rng.randrange(len(rows)), rng.choice("abc")
    relabelled = records.with_columns(label=records["label"].scatter(row, new))
    first, second = (split_of_each(table) for table in (records, relabelled))  # each split has groups of each label
    moved = set(records.filter([first[id] != second[id] for id in records["id"]])["group"])
    own, old = records["group"][row], records["label"][row]
    commonest = relabelled.filter(group=own)["label"].mode().min()
    assert {group[0] for group in moved - {own}} <= {old, commonest}
    assert commonest != old or not moved


def test_of_three_groups_the_largest_is_trained_on() -> None:
    rows = [{"text": "t", "group": f"g{index % 3 if index < 6 else 0}", "label": "a"} for index in range(50)]
    rows += [{"text": "t", "label": "b"} for _ in range(9)]
    splits = splits_of(make_records(rows), Split(), 13)
    assert splits["train"].filter(group="g0").height == 46
    assert all(set(rows["label"]) == {"a", "b"} for rows in splits.values())


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (labelled({"a": 50, "b": 50}, group="one"), "the validation split would be empty"),
        (official(*SPLITS).remove(split="test", label="b"), "test split .* would hold no row with the label 'b'"),
    ],
)
def test_rows_that_cannot_fill_three_splits_are_an_error_that_says_why(records: pl.DataFrame, message: str) -> None:
    with pytest.raises(AttuneError, match=message):
        splits_of(records, Split(), seed=13)


def test_what_an_official_split_leaves_out_is_drawn_from_the_other_rows() -> None:
    fixed, free = official("test"), labelled({"a": 200, "b": 200})
    placed = split_of_each(pl.concat([fixed, free]))
    assert {placed[row] for row in fixed["id"]} == {"test"}
    assert {placed[row] for row in free["id"]} == {"train", "validation"}
    assert abs([*placed.values()].count("validation") - 40) <= 18


@pytest.mark.parametrize(("there", "drawn"), [(("train", "test"), "validation"), (("train", "validation"), "test")])
@pytest.mark.parametrize("by", ["random", "time"])
def test_what_a_complete_official_split_lacks_is_drawn_from_train(there: tuple[str, str], drawn: str, by: str) -> None:
    rows = [
        {"label": "ab"[n % 2], "text": "t", "split": there[n // 200], "group": f"{there[n // 200]} {n // 4}"}
        for n in range(240)
    ]
    records = make_records(rows)
    splits = splits_of(records, Split.model_validate({"by": by}), 13)
    official = dict(records.select("id", "split").iter_rows())
    assert {official[row] for row in splits[there[1]]["id"]} == {there[1]} and splits[there[1]].height == 40
    assert {official[row] for row in splits[drawn]["id"]} == {"train"}
    drawn_rows = splits[drawn].height
    assert drawn_rows == 20 if by == "time" else 4 <= drawn_rows <= 40
    assert not set(splits["train"]["group"]) & set(splits[drawn]["group"])
    counts = pl.DataFrame({"split": ["test", "train"], "len": [1200, 200], "unlabelled": [1160, 0]})
    assert official_warnings(counts, records.filter(split="train")["id"], splits) == [
        "test: 1,160 of the 1,200 rows that are officially there have no label, and are rejected",
        f"{drawn}: no official row is left for it, so {drawn_rows} were drawn from the official train",
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
        splits = splits_of(records, params, seed)
    except AttuneError as error:
        with pytest.raises(AttuneError, match=re.escape(str(error))):
            splits_of(records[order], params, seed)
        return
    assert sorted(row for part in splits.values() for row in part["id"]) == sorted(records["id"])
    for name, part in splits.items():
        assert part.columns == CleanRecords.columns()
        drawn = name == "train" and records["split"].drop_nulls().n_unique() < 3
        assert drawn or set(records.filter(split=name)["id"]) <= set(part["id"])
        assert set(records.filter(pl.len().over("label") >= 3)["label"]) <= set(part["label"])
    placed = pl.concat(part.with_columns(split=pl.lit(name)) for name, part in splits.items())
    assert torn(placed) <= torn(records), "no group is in two splits, unless the source has it so"
    if by == "time":
        for before, after in pairwise(filter(None, (newest(splits[name]) for name in SPLITS))):
            assert max(before) <= min(after)
    outside = pl.concat([splits["train"], splits["validation"]])
    assert {*outside["fold"]} == ({*range(folds)} or {None})
    assert {*splits["test"]["fold"]} == {None}
    assert (outside.drop_nulls("group").group_by("group").agg(pl.col("fold").n_unique())["fold"] == 1).all()
    again = splits_of(records[order], params, seed)
    assert all(again[name].equals(splits[name]) for name in SPLITS)


@given(st.integers(3, 40), st.integers(3, 40), SHARE, SHARE, st.integers(0, 99))
def test_rows_without_groups_are_never_refused_from_three_a_label_on(
    a: int, b: int, validation: float, test: float, seed: int
) -> None:
    assume(validation + test <= 0.8)
    splits = splits_of(labelled({"a": a, "b": b}), Split(validation=validation, test=test), seed)
    assert all(set(rows["label"]) == {"a", "b"} for rows in splits.values())


def test_the_newest_rows_are_test_those_before_validation_and_of_the_same_time_the_seed_decides() -> None:
    days = [str(date(2024, 1, 1) + timedelta(day)) for day in random.Random(5).sample(range(300), 300)]
    records = make_records([{"text": "t", "timestamp": day} for day in days])
    splits, days = splits_of(records, Split(by="time", validation=0.1, test=0.2), 13), sorted(days)
    assert [sorted(splits[name]["timestamp"]) for name in SPLITS] == [days[:210], days[210:240], days[240:]]
    same = make_records([{"text": "t", "timestamp": "2024"}] * 200)
    first, second = (splits_of(same, Split(by="time"), seed)["test"]["id"] for seed in (13, 14))
    assert len(first) == len(second) == 20 and set(first) != set(second)


@pytest.mark.parametrize("folds", [2, 7])
def test_each_fold_has_at_least_half_its_share_of_each_label(folds: int) -> None:
    records = labelled({"a": 70, "b": 28, "c": 14})
    placed = records.with_columns(fold=folds_of(records, folds, 13))
    for label, rows in (("a", 70), ("b", 28), ("c", 14)):
        counts = placed.filter(label=label)["fold"].value_counts()["count"]
        assert len(counts) == folds and counts.min() >= rows // folds // 2
    assert sorted(folds_of(labelled({"a": 2, "b": 3, "c": 3}), 8, 13)) == [*range(8)], "no fold is empty"


def test_a_large_group_leaves_rows_for_every_other_fold_and_too_few_groups_are_an_error() -> None:
    records = pl.concat([labelled({"a": 600}, group="huge"), labelled({"a": 400})])
    counts = folds_of(records, 5, 13).value_counts()["count"].sort()
    assert len(counts) == 5 and counts[-1] >= 600 and counts[0] >= 80 - 24
    assert abs(splits_of(pl.concat([records, labelled({"b": 50})]), DEFAULT, 13)["test"].height - 45) <= 19
    with pytest.raises(AttuneError, match=r"asks for 10 folds, but the rows outside test fill 8"):
        folds_of(labelled({"a": 8}), 10, 13)


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
