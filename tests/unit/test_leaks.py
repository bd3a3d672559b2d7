"""What the splits share is found and told, whoever made them."""

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean import split_report as leaks
from stages.clean.filters import near_duplicate
from stages.clean.split import split_records
from stages.clean.split_report import split_report
from stages.common.errors import AttuneError
from stages.common.ledger import Ledger
from stages.common.params.clean import CleanParams, NearDuplicates, Split
from stages.common.schemas import SPLITS, CleanRecords
from tests.unit.small_records import FILM_WORDS, make_records

PARAMS = CleanParams()


def clean(rows: list[dict[str, Any]], start: str = "") -> pl.DataFrame:
    records = make_records([{"text": "t", **row} for row in rows])
    return records.with_columns(id=pl.lit(start) + pl.col("id"), fold=pl.lit(None, pl.Int16)).select(
        CleanRecords.columns()
    )


def splits_of(**rows: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    return {name: clean(rows.get(name, [{"text": f"nothing but {name}"}]), f"{name} ") for name in SPLITS}


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choice(FILM_WORDS) + str(rng.randrange(1000)) for _ in range(10))


def test_a_split_is_described_and_many_long_labels_do_not_make_a_huge_report() -> None:
    rows = [{"text": "x" * (at + 1), "label": "b" if at < 3 else "a", "group": f"g{at % 4}"} for at in range(21)]
    for row, time in zip(rows, ("2020-05", "2019-05-03 10:00", "then"), strict=False):
        row["timestamp"] = time
    found = leaks.describe(clean(rows).with_columns(fold=pl.Series([0, 1, 1] * 7, dtype=pl.Int16)))
    assert (found["rows"], found["groups"], found["folds"]) == (21, 4, {"0": 7, "1": 14})
    assert found["labels"][0] == {"label": "a", "rows": 18, "share": 0.8571}
    assert found["characters"] == {"0%": 1, "5%": 2, "25%": 6, "50%": 11, "75%": 16, "95%": 20, "100%": 21}
    times = {"oldest": "2019-05-03T10:00:00Z", "newest": "2020-05-01T00:00:00Z", "unreadable": 19, "taken_as_utc": 1}
    assert found["times"] == times
    many = leaks.describe(clean([{"text": "t", "label": f"{at} " + "long" * 50} for at in range(500)]))
    assert many["other_labels"] == {"labels": 300, "rows": 300}
    assert {len(entry["label"]) for entry in many["labels"]} == {80}


def test_a_group_torn_by_the_official_split_is_counted_masked_and_warned_of() -> None:
    torn = [{"text": f"row number {at} of a film", "group": f"g{at}"} for at in range(8)]
    other = [{"text": f"quite another text {at}", "group": f"g{at}"} for at in range(2, 12)]
    torn[5]["group"] = other[3]["group"] = "f me@example.org \x1b[2J"
    splits = splits_of(train=torn, test=other)
    report = split_report(splits, PARAMS, 13, lambda text: text.replace("me@example.org", "[EMAIL]"))
    examples = ["f [EMAIL] ⟨U+001B⟩[2J", "g2", "g3", "g4", "g6"]
    assert report["shared"]["train / test"]["groups"] == {"groups": 6, "examples": examples}
    listed = ", ".join(examples)
    assert report["warnings"] == [f"train / test: 6 groups are in both, as the official split has it: {listed}, …"]


def test_a_split_by_time_that_groups_made_impure_is_warned_of() -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": f"text {at} of {group}",
            "group": f"g{group}",
            "timestamp": f"2024-0{1 + at}",
            "label": "xy"[(at + group) % 2],
        }
        for group in range(8)
        for at in range(6)
    ]
    params = CleanParams(split={"by": "time"})
    splits = split_records(make_records(rows), params.split, 13)
    newest = splits["train"]["timestamp"].max()
    older = splits["test"].filter(pl.col("timestamp") < newest).height
    warnings = split_report(splits, params, 13)["warnings"]
    assert older
    assert any(f"test: {older} of {splits['test'].height} rows are older than the newest" in told for told in warnings)

    alone = split_records(make_records(rows).with_columns(group=pl.lit(None, pl.String)), params.split, 13)
    assert not any("older" in told for told in split_report(alone, params, 13)["warnings"])


def test_a_text_in_two_splits_is_a_fault_of_the_program_and_a_pair_is_both_of_its_texts() -> None:
    one, other = {"text": "The SAME text", "text_pair": "one"}, {"text": "the same TEXT", "text_pair": "one"}
    with pytest.raises(RuntimeError, match="train / validation share texts, such as the rows train row000000 and val"):
        split_report(splits_of(train=[one], validation=[other]), PARAMS, 13)
    split_report(splits_of(train=[one], validation=[other | {"text_pair": "quite another"}]), PARAMS, 13)


def test_near_duplicates_are_counted_with_the_highest_similarity_and_the_worst_pairs_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(2)
    texts = [sentence(rng) for _ in range(40)]
    test = [{"text": f"{text} more{'more' * (at % 2)}"} for at, text in enumerate(texts[:8])] + [
        {"text": sentence(rng)}
    ]
    splits = splits_of(train=[{"text": text} for text in texts], test=test)
    report = split_report(splits, PARAMS, 13)
    shuffled = {name: rows.sample(fraction=1.0, shuffle=True, seed=5) for name, rows in splits.items()}
    assert split_report(shuffled, PARAMS, 13) == report
    found = report["shared"]["train / test"]["near_duplicates"]
    assert found["rows"] == 8
    assert len(found["examples"]) == 5
    similarities = [similarity for *_, similarity in found["examples"]]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] == found["highest_similarity"] > 0.9
    assert all(one[-6:] == other[-6:] for one, other, _ in found["examples"])
    assert report["warnings"] == [
        "train / test: 8 rows of the second nearly equal one of the first (MinHash missed them)"
    ]
    assert found["compared"] == [40, 9]
    monkeypatch.setattr(leaks, "ROWS", 10)  # of more rows, a sample is compared
    sampled = split_report(splits, PARAMS, 13)
    assert sampled["shared"]["train / test"]["near_duplicates"]["compared"] == [10, 9]
    assert split_report(shuffled, PARAMS, 13) == sampled


WORD = st.sampled_from(["good", "bad", "film", "story", "a", "the", "12", "😀", "电影"])
RAW_ROW = st.fixed_dictionaries(
    {
        "label": st.sampled_from("ab"),
        "group": st.none() | st.sampled_from([f"g{at}" for at in range(9)]),
        "text": st.lists(WORD, min_size=2, max_size=8).map(" ".join),
    }
)


@given(st.lists(RAW_ROW, min_size=20, max_size=60, unique_by=lambda row: row["text"]), st.randoms(), st.integers(0, 50))
def test_after_cleaning_nothing_is_shared_and_the_report_knows_no_order_of_rows(
    rows: list[dict[str, Any]], rng: random.Random, seed: int
) -> None:
    params = CleanParams(near_duplicates=NearDuplicates(num_perm=64), split=Split(validation=0.3, test=0.3, folds=2))
    records = make_records(rows)
    records = Ledger("t", records.height).apply(
        "near", lambda rows: near_duplicate(rows, params.near_duplicates), records
    )
    try:
        splits = split_records(records, params.split, seed)
    except AttuneError:  # too few rows of a label
        return
    report = split_report(splits, params, seed)
    assert report["warnings"] == []
    assert not any(pair["groups"]["groups"] for pair in report["shared"].values())
    order = list(range(records.height))
    rng.shuffle(order)
    assert split_report(split_records(records[order], params.split, seed), params, seed) == report
