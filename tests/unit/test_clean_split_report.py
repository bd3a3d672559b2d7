"""What the splits share is found and reported, whoever made them."""

import random
from typing import Any

import polars as pl
import pytest

from stages.clean import split_report as report_module
from stages.clean.split import split_records
from stages.clean.split_report import describe, split_report
from stages.common.display import Mask
from stages.common.params.clean import CleanParams
from stages.common.schemas import SPLITS
from tests.unit.small_records import FILM_WORDS, TASK, clean_rows, counted, make_records

PARAMS = CleanParams()


def splits_of(**rows: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    return {name: clean_rows(rows.get(name, [{"text": f"nothing but {name}"}]), f"{name} ") for name in SPLITS}


def report_on(
    splits: dict[str, pl.DataFrame], mask: Mask | None = None, params: CleanParams = PARAMS
) -> dict[str, Any]:
    return split_report(splits, counted(splits), params, 13, mask)


def described(rows: pl.DataFrame) -> dict[str, Any]:
    return describe(rows, TASK.named(rows["label"]))


def test_a_split_is_described_and_many_long_labels_do_not_make_a_huge_report() -> None:
    rows = [{"text": "x" * (row + 1), "label": "b" if row < 3 else "a", "group": f"g{row % 4}"} for row in range(21)]
    for row, time in zip(rows, ("2020-05", "2019-05-03 10:00", "then"), strict=False):
        row["timestamp"] = time
    some = described(clean_rows(rows).with_columns(fold=pl.Series([0, 1, 1] * 7, dtype=pl.Int16)))
    assert (some["rows"], some["groups"], some["folds"]) == (21, 4, {"0": 7, "1": 14})
    assert some["labels"][0] == {"label": "a", "rows": 18, "share": 0.8571}
    assert some["characters"] == {"0%": 1, "5%": 2, "25%": 6, "50%": 11, "75%": 16, "95%": 20, "100%": 21}
    times = {"oldest": "2019-05-03T10:00:00Z", "newest": "2020-05-01T00:00:00Z", "unreadable": 19, "taken_as_utc": 1}
    assert some["times"] == times
    many = described(clean_rows([{"text": "t", "label": f"{index} " + "long" * 50} for index in range(500)]))
    assert many["other_labels"] == {"labels": 300, "rows": 300} and len(many["labels"][0]["label"]) == 80


def test_a_group_torn_by_the_official_split_is_counted_masked_and_warned_of() -> None:
    torn = [{"text": f"row number {index} of a film", "group": f"g{index}"} for index in range(8)]
    other = [{"text": f"quite another text {index}", "group": f"g{index}"} for index in range(2, 12)]
    torn[5]["group"] = other[3]["group"] = "f me@example.org \x1b[2J"
    splits = splits_of(train=torn, test=other)
    report = report_on(splits, lambda text: text.replace("me@example.org", "[EMAIL]"))
    examples = ["f [EMAIL] ⟨U+001B⟩[2J", "g2", "g3", "g4", "g6"]
    assert report["shared"]["train / test"]["groups"] == {"groups": 6, "examples": examples}
    listed = ", ".join(examples)
    assert report["warnings"] == [f"train / test: 6 groups are in both, as the official split has it: {listed}, …"]


def test_a_split_by_time_that_groups_made_impure_is_warned_of() -> None:
    rows: list[dict[str, str | None]] = [
        {"text": f"{row}", "group": f"{row // 6}", "timestamp": f"2024-0{1 + row % 6}", "label": "xy"[row % 7 % 2]}
        for row in range(48)
    ]
    records = make_records(rows).with_columns(stratum=pl.col("label"))
    params = CleanParams(split={"by": "time"})
    splits = split_records(records, params.split, 13)
    older = splits["test"].filter(pl.col("timestamp") < splits["train"]["timestamp"].max()).height
    warnings = "\n".join(report_on(splits, params=params)["warnings"])
    assert older and f"test: {older} of {splits['test'].height} rows are older than the newest" in warnings

    alone = split_records(records.with_columns(group=pl.lit(None, pl.String)), params.split, 13)
    assert not any("older" in warning for warning in report_on(alone, params=params)["warnings"])


def test_a_text_in_two_splits_is_a_fault_of_the_program_and_a_pair_is_both_of_its_texts() -> None:
    row, same = {"text": "The SAME text", "text_pair": "one"}, {"text": "the same TEXT", "text_pair": "one"}
    with pytest.raises(RuntimeError, match="train / validation share texts, such as the rows train row000000 and val"):
        report_on(splits_of(train=[row], validation=[same]))
    report_on(splits_of(train=[row], validation=[same | {"text_pair": "quite another"}]))


def test_near_duplicates_are_counted_with_the_highest_similarity_and_the_worst_pairs_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(2)
    texts = [" ".join(f"{rng.choice(FILM_WORDS)}{rng.randrange(1000)}" for _ in range(10)) for _ in range(41)]
    test = [{"text": f"{text} more{'more' * (index % 2)}"} for index, text in enumerate(texts[:8])]
    splits = splits_of(train=[{"text": text} for text in texts[:40]], test=[*test, {"text": texts[40]}])
    report = report_on(splits)
    shuffled = {name: rows.sample(fraction=1.0, shuffle=True, seed=5) for name, rows in splits.items()}
    assert report_on(shuffled) == report
    near = report["shared"]["train / test"]["near_duplicates"]
    similarities = [similarity for *_, similarity in near["examples"]]
    assert (near["rows"], near["compared"], len(similarities)) == (8, [40, 9], 5)
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] == near["highest_similarity"] > 0.9
    assert all(left[-6:] == right[-6:] for left, right, _ in near["examples"])
    assert [warning.partition(" nearly")[0] for warning in report["warnings"]] == ["train / test: 8 rows of the second"]
    monkeypatch.setattr(report_module, "ROWS", 10)  # of more rows, a sample is compared
    sampled = report_on(splits)
    assert sampled["shared"]["train / test"]["near_duplicates"]["compared"] == [10, 9]
    assert report_on(shuffled) == sampled
