"""Drift between train and the held-out splits is found where there is some, and not where there is none."""

import random
from typing import Any

import polars as pl
import pytest
from small_project import FILM_WORDS, make_records

from stages.clean.drift import drift_report
from stages.clean.split import split_records
from stages.common.params.clean import Split
from stages.common.schemas import SPLITS, CleanRecords

COMMON = [f"{word}{number}" for word in FILM_WORDS for number in range(20)]


def text(rng: random.Random, words: list[str] = COMMON, length: int = 12) -> str:
    return " ".join(rng.choices(words, k=length))


def rows_of(count: int, seed: int, **make: Any) -> pl.DataFrame:
    rng = random.Random(seed)
    rows = [
        {"id": f"{seed} {at}", "text": text(rng), **{name: value(rng, at) for name, value in make.items()}}
        for at in range(count)
    ]
    return make_records(rows).with_columns(fold=pl.lit(None, pl.Int16)).select(CleanRecords.columns())


EMPTY = CleanRecords.empty()


def verdicts(test: pl.DataFrame, train: pl.DataFrame | None = None) -> dict[str, dict[str, Any]]:
    """What the tests say of the test split, by what they compare."""
    splits = {"train": rows_of(2000, 1) if train is None else train, "validation": rows_of(400, 2), "test": test}
    return {entry["what"]: entry for entry in drift_report(splits, 13) if entry["split"] == "test"}


def test_rows_from_the_same_place_show_no_sign_of_drift() -> None:
    for seed in range(10, 14):
        found = verdicts(rows_of(400, seed))
        assert set(found) == {"labels", "lengths", "words"}
        assert {entry["verdict"] for entry in found.values()} == {"no sign of drift"}
        assert found["words"]["statistic"] == pytest.approx(0.5, abs=0.06)


def test_of_many_comparisons_of_like_with_like_few_seem_to_differ() -> None:
    """The folds of a cross-validation are not independent: taken as if they were, a third would have p < 0.1."""
    p_values = [
        entry["p_value"]
        for seed in range(20, 80, 2)
        for entry in drift_report(
            {"train": rows_of(1000, seed), "validation": rows_of(1000, seed + 1), "test": EMPTY}, seed
        )
        if entry["what"] == "words"
    ]
    assert len(p_values) == 30
    assert sum(p_value < 0.1 for p_value in p_values) <= 5
    assert 8 <= sum(p_value < 0.5 for p_value in p_values) <= 22


def test_other_shares_of_the_labels_are_found_with_their_distance() -> None:
    found = verdicts(rows_of(400, 3, label=lambda rng, at: "positive" if rng.random() < 0.75 else "negative"))
    assert found["labels"]["verdict"].startswith("the labels differ: distance 0.2")
    assert found["labels"]["effect"] == pytest.approx(0.25, abs=0.06)
    assert found["words"]["verdict"] == found["lengths"]["verdict"] == "no sign of drift"


def test_a_label_that_train_lacks_is_drift() -> None:
    found = verdicts(rows_of(400, 4, label=lambda rng, at: "new" if at % 4 == 0 else ("negative", "positive")[at % 2]))
    assert found["labels"]["verdict"].startswith("the labels differ: distance 0.25")


def test_longer_texts_are_found() -> None:
    train = rows_of(2000, 1, text=lambda rng, at: text(rng, length=rng.randint(5, 25)))
    found = verdicts(rows_of(400, 5, text=lambda rng, at: text(rng, length=rng.randint(9, 29))), train)
    assert found["lengths"]["verdict"].startswith("the lengths differ: distance 0.")
    assert found["lengths"]["effect"] == pytest.approx(4 / 21, abs=0.06)
    assert found["labels"]["verdict"] == "no sign of drift"


def test_other_words_are_found_with_the_auc() -> None:
    changed = COMMON[:150] + [f"new{number}" for number in range(50)]
    found = verdicts(rows_of(400, 6, text=lambda rng, at: text(rng, changed)))
    assert found["words"]["statistic"] > 0.8
    assert found["words"]["verdict"] == f"the words differ: AUC {found['words']['statistic']:.2f}"
    assert found["words"]["effect"] == pytest.approx(2 * found["words"]["statistic"] - 1, abs=1e-3)


def test_other_words_are_found_where_there_are_no_spaces() -> None:
    train = rows_of(800, 7, text=lambda rng, at: "".join(rng.choices("电影故事演员音乐剧本很好看", k=12)))
    test = rows_of(300, 8, text=lambda rng, at: "".join(rng.choices("电影故事酒店房间服务很干净", k=12)))
    assert verdicts(test, train)["words"]["statistic"] > 0.9


def test_words_of_single_groups_are_no_drift() -> None:
    """Each film has names of its own, and stands in one split alone: what is learnt of it must not count."""

    def of_film(rng: random.Random, at: int) -> str:
        film = at // 10 % 40
        return text(rng, length=8) + f" hero{seed}x{film} town{seed}x{film}"

    seed = 0
    train = rows_of(800, 9, text=of_film, group=lambda rng, at: f"train {at // 10 % 40}")
    seed = 1
    test = rows_of(400, 10, text=of_film, group=lambda rng, at: f"test {at // 10 % 40}")
    assert verdicts(test, train)["words"]["verdict"] == "no sign of drift"
    alone = verdicts(
        test.with_columns(group=pl.lit(None, pl.String)), train.with_columns(group=pl.lit(None, pl.String))
    )  # as if nothing were known of films
    assert alone["words"]["statistic"] > 0.8


def test_p_values_are_corrected_for_the_number_of_tests() -> None:
    splits = {"train": rows_of(2000, 1), "validation": rows_of(400, 2), "test": rows_of(400, 3)}
    entries = sorted(drift_report(splits, 13), key=lambda entry: entry["p_value"])
    assert len(entries) == 6
    assert entries[0]["p_adjusted"] == pytest.approx(min(1.0, 6 * entries[0]["p_value"]), rel=0.01)
    adjusted = [entry["p_adjusted"] for entry in entries]
    assert adjusted == sorted(adjusted)
    assert max(adjusted) <= 1.0


def test_the_report_knows_no_order_of_rows() -> None:
    splits = split_records(
        make_records([{"text": text(random.Random(at)), "group": f"g{at % 60}"} for at in range(300)]), Split(), 13
    )
    expected = drift_report(splits, 13)
    shuffled = {name: rows.sample(fraction=1.0, shuffle=True, seed=3) for name, rows in splits.items()}
    assert drift_report(shuffled, 13) == expected
    assert drift_report(splits, 13) == expected


@pytest.mark.parametrize("sizes", [(3, 1, 1), (4, 2, 3), (50, 0, 5)])
def test_tiny_splits_are_no_error(sizes: tuple[int, int, int]) -> None:
    splits = {name: rows_of(size, seed) for seed, (name, size) in enumerate(zip(SPLITS, sizes, strict=True))}
    assert {entry["split"] for entry in drift_report(splits, 13)} == {
        name for name in SPLITS[1:] if splits[name].height
    }
