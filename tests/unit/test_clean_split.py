"""Three splits that share no group, hold every label, and hardly change when the data grows."""

import json
import random
import re
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stages.clean.folds import assign_folds
from stages.clean.split import split_records
from stages.clean.timestamps import read_times
from stages.common.errors import AttuneError
from stages.common.params.clean import Split
from stages.common.schemas import SPLITS, CleanRecords, Decontamination, RawRecords, Rejected
from tests.projects import Project
from tests.unit.small_records import FILM_WORDS, make_records

Rows = list[dict[str, str | None]]


def homes(records: pl.DataFrame, seed: int = 13, **shares: float) -> dict[str, str]:
    """The split of each row, by id."""
    splits = split_records(records, Split(**shares), seed)
    placed = {row: name for name, rows in splits.items() for row in rows["id"]}
    assert sum(rows.height for rows in splits.values()) == len(placed) == records.height
    return placed


def sizes(placed: dict[str, str]) -> dict[str, int]:
    return {name: list(placed.values()).count(name) for name in SPLITS}


def labelled(counts: dict[str, int], **others: str | None) -> pl.DataFrame:
    """Rows under these labels, each a group of its own."""
    return make_records([{"label": label, "text": "t", **others} for label, n in counts.items() for _ in range(n)])


def grouped(groups: int, seed: int = 1, largest: int = 9) -> pl.DataFrame:
    """Groups of 1 to `largest` rows with labels mixed inside of them."""
    rng = random.Random(seed)
    return make_records(
        [
            {"text": "t", "group": f"g{group}", "label": rng.choice(["negative", "positive", "positive"])}
            for group in range(groups)
            for _ in range(rng.randint(1, largest))
        ]
    )


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.3, 0.2), (0.01, 0.4)])
def test_the_shares_are_met_for_each_label(validation: float, test: float) -> None:
    records = labelled({"a": 1000, "b": 300, "c": 200})
    splits = split_records(records, Split(validation=validation, test=test), seed=13)
    for label, count in (("a", 1000), ("b", 300), ("c", 200)):
        for name, share in (("validation", validation), ("test", test)):
            assert abs(splits[name].filter(label=label).height - share * count) <= 1


def test_a_row_more_moves_hardly_any_other_row() -> None:
    records = labelled({"a": 500, "b": 500})
    before, folds = homes(records), assign_folds(records, 5, 13)
    for number in range(20):
        more = pl.concat([records, make_records([{"id": f"new{number}", "text": "t", "label": "a"}])])
        after = homes(more)
        assert sum(after[row] != before[row] for row in before) <= 2
        assert (assign_folds(more, 5, 13)[:-1] != folds).sum() <= 5


@pytest.mark.parametrize("seed", range(6))
def test_of_three_groups_the_largest_is_trained_on(seed: int) -> None:
    rows = [{"text": "t", "group": f"g{at % 3 if at < 6 else 0}", "label": "a"} for at in range(50)]
    rows += [{"text": "t", "label": "b"} for _ in range(9)]
    splits = split_records(make_records(rows), Split(), seed)
    assert splits["train"].filter(group="g0").height == 46
    assert all(set(rows["label"]) == {"a", "b"} for rows in splits.values())


# ── official splits ─────────────────────────────────────────────────────────────────────────────────────────────────


def official(counts: dict[str, dict[str, int]]) -> pl.DataFrame:
    """Rows with an official split: {split: {label: rows}}."""
    return make_records(
        [
            {"text": "t", "split": name, "label": label, "id": f"official {name} {label} {at}"}
            for name, labels in counts.items()
            for label, rows in labels.items()
            for at in range(rows)
        ]
    )


BOTH = {"a": 20, "b": 20}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (labelled({}), "there is not one labelled row"),
        (labelled({"a": 50}), "there is only the label 'a', and a classifier needs two"),
        (labelled({"a": 50, "b": 2}), r"too few rows for three splits under the label 'b' \(2\)"),
        (labelled({"a": 50, "b": 50}, group="one"), "the validation split would be empty"),
        (official({"train": BOTH, "test": BOTH}), "the validation split would be empty"),
        (
            official({"train": BOTH, "validation": BOTH, "test": {"a": 20}}),
            r"the test split \(20 rows\) would hold no row with the label 'b'",
        ),
    ],
)
def test_rows_that_cannot_fill_three_splits_are_an_error_that_says_why(records: pl.DataFrame, said: str) -> None:
    with pytest.raises(AttuneError, match=said):
        split_records(records, Split(), seed=13)


def test_what_an_official_split_leaves_out_is_drawn_from_the_other_rows() -> None:
    fixed, free = official({"test": BOTH}), labelled({"a": 200, "b": 200})
    placed = homes(pl.concat([fixed, free]), validation=0.2)
    assert {placed[row] for row in fixed["id"]} == {"test"}
    assert {placed[row] for row in free["id"]} == {"train", "validation"}
    assert abs(sizes(placed)["validation"] - 80) <= 2


# ── for any data at all ─────────────────────────────────────────────────────────────────────────────────────────────

ROW = st.fixed_dictionaries(
    {
        "label": st.sampled_from("ab"),
        "group": st.none() | st.sampled_from([f"g{at}" for at in range(8)]) | st.text(max_size=3),
        "split": st.none() | st.none() | st.sampled_from(SPLITS),
        "timestamp": st.none() | st.sampled_from([f"2024-0{month}-11" for month in range(1, 10)]),
        "text": st.just("t"),
    }
)
SHARE = st.floats(0.01, 0.4)


def newest(rows: pl.DataFrame) -> Any:
    """The newest time of each group; a row without one is its own."""
    timed = rows.with_columns(read_times(rows["timestamp"])["time"], unit=pl.coalesce("group", "id"))
    return timed.group_by("unit").agg(pl.col("time").max())["time"].drop_nulls()


@pytest.mark.parametrize("by", ["random", "time"])
@given(st.lists(ROW, min_size=6, max_size=40), SHARE, SHARE, st.integers(0, 99), st.randoms(use_true_random=False))
def test_any_data_is_split_without_loss_and_without_a_shared_group_or_refused(
    by: Any, rows: Rows, validation: float, test: float, seed: int, rng: random.Random
) -> None:
    records = make_records([{**row, "split": None} for row in rows] if by == "time" else rows)
    params = Split(by=by, validation=validation, test=test)
    order = list(range(records.height))
    rng.shuffle(order)
    try:
        splits = split_records(records, params, seed)
    except AttuneError as error:
        with pytest.raises(AttuneError, match=re.escape(str(error))):
            split_records(records[order], params, seed)
        return
    assert sorted(row for part in splits.values() for row in part["id"]) == sorted(records["id"])
    homes_of: dict[str, set[str]] = {}
    for name, part in splits.items():
        assert part.columns == CleanRecords.columns()
        assert set(records.filter(split=name)["id"]) <= set(part["id"])
        assert set(part["label"]) == set(records["label"])
        for group in part["group"].drop_nulls():
            homes_of.setdefault(group, set()).add(name)
    given_homes = records.drop_nulls(["group", "split"]).group_by("group").agg(pl.col("split").unique())
    torn_by_the_source = {group for group, names in given_homes.iter_rows() if len(names) > 1}
    assert {group for group, names in homes_of.items() if len(names) > 1} <= torn_by_the_source
    if by == "time":
        times = [newest(splits[name]) for name in SPLITS]
        for before, after in pairwise(of_split for of_split in times if len(of_split)):
            assert before.max() <= after.min()
    again = split_records(records[order], params, seed)
    assert all(again[name].equals(splits[name]) for name in SPLITS)


@given(st.integers(3, 40), st.integers(3, 40), SHARE, SHARE, st.integers(0, 99))
def test_rows_without_groups_are_never_refused_from_three_a_label_on(
    a: int, b: int, validation: float, test: float, seed: int
) -> None:
    assume(validation + test <= 0.8)
    splits = split_records(labelled({"a": a, "b": b}), Split(validation=validation, test=test), seed)
    assert all(set(rows["label"]) == {"a", "b"} for rows in splits.values())


def test_the_newest_rows_are_test_those_before_validation_and_of_the_same_time_the_seed_draws() -> None:
    days = [str(date(2024, 1, 1) + timedelta(day)) for day in random.Random(5).sample(range(300), 300)]
    splits = split_records(
        make_records([{"text": "t", "timestamp": day} for day in days]), Split(by="time", validation=0.1, test=0.2), 13
    )
    assert {name: rows.height for name, rows in splits.items()} == {"train": 210, "validation": 30, "test": 60}
    assert splits["test"]["timestamp"].min() == "2024-08-28"  # day 240
    assert splits["validation"]["timestamp"].min() == "2024-07-29"
    same = make_records([{"text": "t", "timestamp": "2024"}] * 200)
    drawn = [split_records(same, Split(by="time"), seed)["test"]["id"] for seed in (13, 14)]
    assert len(drawn[0]) == len(drawn[1]) == 20
    assert set(drawn[0]) != set(drawn[1])


# ── folds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_test_has_no_fold_and_every_other_row_has_one() -> None:
    splits = split_records(grouped(200), Split(folds=5), seed=13)
    assert splits["test"]["fold"].null_count() == splits["test"].height
    outside = pl.concat([splits["train"], splits["validation"]])
    assert sorted(outside["fold"].unique().to_list()) == [0, 1, 2, 3, 4]
    assert outside.schema["fold"] == pl.Int16
    assert split_records(grouped(50), Split(), seed=13)["train"]["fold"].null_count() > 0


@pytest.mark.parametrize("folds", [2, 7])
def test_folds_have_the_same_label_shares_and_sizes(folds: int) -> None:
    records = labelled({"a": 700, "b": 140, "c": 71})
    placed = records.with_columns(fold=assign_folds(records, folds, 13))
    for label, rows in (("a", 700), ("b", 140), ("c", 71)):
        counts = placed.filter(label=label)["fold"].value_counts()["count"]
        assert counts.max() - counts.min() <= 1
        assert counts.sum() == rows


def test_a_large_group_leaves_rows_for_every_other_fold_and_too_few_groups_are_an_error() -> None:
    records = pl.concat([labelled({"a": 600}, group="huge"), labelled({"a": 400}).with_columns(id=pl.col("id") + "x")])
    counts = assign_folds(records, 5, 13).value_counts()["count"].sort()
    assert len(counts) == 5
    assert counts[-1] >= 600
    assert counts[0] > 30
    with pytest.raises(AttuneError, match=r"asks for 10 folds, but the rows outside test fill 8"):
        assign_folds(labelled({"a": 8}), 10, 13)


@given(st.lists(ROW, min_size=10, max_size=40), st.integers(2, 5), st.integers(0, 99), st.randoms())
def test_folds_keep_groups_together_in_any_order_of_the_rows(
    rows: Rows, folds: int, seed: int, rng: random.Random
) -> None:
    records = make_records(rows)
    order = list(range(records.height))
    rng.shuffle(order)
    try:
        found = records.with_columns(fold=assign_folds(records, folds, seed))
    except AttuneError:
        return
    assert found[order]["fold"].equals(assign_folds(records[order], folds, seed))
    assert (found.drop_nulls("group").group_by("group").agg(pl.col("fold").n_unique())["fold"] == 1).all()


# ── the whole stage ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_stage_accounts_for_every_row_and_writes_the_same_bytes_again(project: Project) -> None:
    rng = random.Random(4)
    rows: Rows = [
        {"text": " ".join(rng.choice(FILM_WORDS) + str(rng.randrange(30)) for _ in range(8))} for _ in range(80)
    ]
    rows += [
        {"text": None},
        {"text": "<br> \u200b"},
        {"text": "no"},
        {"text": "a label is missing here", "label": None},
        {**rows[0], "label": "x"},
        {"text": "caf&eacute; &amp; more text than enough", "label": "positive"},
    ]
    RawRecords.write(make_records(rows), project.root / "data/raw/records.parquet")
    Rejected.write(Rejected.empty(), project.root / "data/raw/rejected.parquet")
    Decontamination.write(Decontamination.empty(), project.root / "data/raw/decontamination.parquet")
    found = []
    for _ in range(2):
        done = project.python("-m", "stages.clean")
        assert done.returncode == 0, done.stderr
        outs = [*sorted((project.root / "data/clean").iterdir()), *sorted((project.root / "reports").glob("*.*"))]
        found.append({file.name: file.read_bytes() for file in outs})
    assert found[0] == found[1]

    tables = {name: CleanRecords.read(project.root / f"data/clean/{name}.parquet") for name in SPLITS}
    rejected = Rejected.read(project.root / "data/clean/rejected.parquet")
    report = json.loads(found[0]["clean.json"])
    assert sum(table.height for table in tables.values()) == report["rows_kept"]
    assert report["rows_in"] == len(rows) == report["rows_kept"] + rejected.height
    assert report["rejected_by_rule"]["conflicting_labels"] == 2
    assert rejected.filter(rule="empty_text")["text"].to_list() == [None, "<br> \u200b"], "as it came"
    assert report["texts_changed_by"]["entities"] == 1
    assert {name: entry["rows"] for name, entry in report["splits"].items()} == {
        name: table.height for name, table in tables.items()
    }
