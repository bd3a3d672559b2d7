"""Whether rows differ from those of training by more than chance, and what is kept of these to compare with."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.common.drift import answer_counts, by_chance, drift_report, profile_of, psi, split_drift, text_counts
from stages.common.params import CleanParams
from stages.common.schemas import SPLITS
from stages.tasks.text_classification import TASK
from tests.unit.small_decisions import label_decision
from tests.unit.small_records import make_records

LABELS = ["bad", "good"]
DECISION = label_decision(LABELS, thresholds={"good": 0.7})
WORDS = [f"word{number}" for number in range(400)]


def described(train: pl.DataFrame, answers: np.ndarray) -> dict[str, Any]:
    counts = dict(train["label"].value_counts().sort("label").iter_rows())
    return profile_of(train, counts, TASK.drift_values(answers, DECISION), DECISION.abstains(answers))


def texts(count: int, seed: int, words: list[str] = WORDS) -> list[str]:
    """Texts whose words are as unequally frequent as those of a language (Zipf)."""
    draw = np.random.default_rng(seed)
    shares = 1 / np.arange(1, len(words) + 1)
    lengths = draw.integers(3, 21, count)
    drawn = iter(draw.choice(words, lengths.sum(), p=shares / shares.sum()).tolist())
    return [" ".join(next(drawn) for _ in range(length)) for length in lengths]


def table(rows: list[str | None], labels: list[str] = LABELS, **columns: list[str]) -> pl.DataFrame:
    """Return rows of these texts with labels in turn, and further columns."""
    filled = [{"text": text, "label": labels[row % len(labels)]} for row, text in enumerate(rows)]
    return make_records(filled).with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def probabilities(count: int, seed: int) -> np.ndarray:
    first = np.random.default_rng(seed).beta(4, 1, count)
    first = np.where(np.random.default_rng(seed + 1).random(count) < 0.5, first, 1 - first)
    return np.column_stack([first, 1 - first])


def drifted(splits: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    counts = {name: TASK.counts(rows["label"], CleanParams()) for name, rows in splits.items()}
    return split_drift(splits, counts)


@pytest.fixture(scope="module")
def profile() -> dict:
    return described(table(texts(1500, 0)), probabilities(400, 0))


def verdicts(profile: dict, rows: list[str | None], answers: np.ndarray) -> dict[str, str]:
    counts = text_counts(profile, table(rows)) | answer_counts(
        profile, TASK.drift_values(answers, DECISION), DECISION.abstains(answers)
    )
    report = drift_report(profile, counts)
    return {"whole": report["verdict"], **{entry["measure"]: entry["verdict"] for entry in report["measures"]}}


def test_a_profile_is_the_same_in_any_order_of_the_rows_and_plain_json(profile: dict) -> None:
    rows, answers = table(texts(1500, 0)), probabilities(400, 0)
    mixed = described(rows.sample(fraction=1, shuffle=True, seed=3), answers[::-1])
    assert json.dumps(mixed) == json.dumps(profile, allow_nan=False)


def test_a_profile_of_many_different_words_stays_small() -> None:
    rows = table([f"one{number} two{number} three{number} four{number}" for number in range(20_000)])
    made = described(rows, probabilities(100, 0))
    assert len(json.dumps(made)) < 100_000
    known, new = text_counts(made, rows)["new words"]
    assert new == 0 and known == pytest.approx(80_000 / made["measures"]["new words"]["one_in"], rel=0.1)


@pytest.mark.parametrize("count", [1, 20, 1000])
def test_rows_like_those_of_training_are_no_drift(profile: dict, count: int) -> None:
    for seed in range(10, 13):
        assert verdicts(profile, texts(count, seed), probabilities(count, seed))["whole"] == "no sign of drift"


def test_other_texts_other_lengths_and_other_answers_are_each_found_by_their_measure(profile: dict) -> None:
    rows, answers = texts(200, 7), probabilities(200, 7)
    other = verdicts(profile, texts(200, 7, [f"other{number}" for number in range(300)]), answers)
    assert other["commonest words"] == other["words never seen in training"] == "strong drift"
    assert other["predicted labels"] == "no sign of drift"
    short = verdicts(profile, [*[text[:20] for text in rows[50:]], *[None] * 50], answers)
    assert short["lengths of the texts"] == short["rows without a text"] == "strong drift"
    same = verdicts(profile, rows, np.tile([0.4, 0.6], (200, 1)))
    assert same["confidence"] == same["abstentions"] == same["predicted labels"] == "strong drift"


def test_a_language_without_spaces_is_counted_by_its_characters_and_pairs_by_both_texts(profile: dict) -> None:
    made = described(table(["这部电影很好看", "音乐也不错"] * 50), probabilities(50, 0))
    assert made["unit"] == "characters"
    assert text_counts(made, table(["电影院"]))["new words"] == [2, 1]
    made = described(table(["one two"] * 20, text_pair=["three four"] * 20), probabilities(50, 0))
    assert made["pairs"] and not profile["pairs"]
    assert set(made["measures"]["words"]["words"]) == {"one", "two", "three", "four"}


def test_what_chance_does_is_what_the_theory_says_of_it() -> None:
    """Without drift the PSI is (1/n + 1/m) times a chi-square of bins - 1 degrees of freedom (Yurdakul 2018)."""
    mean, limit = by_chance(np.full(10, 500.0), 1000, 0.01)
    assert mean == pytest.approx(9 * (1 / 5000 + 1 / 1000), rel=0.05)
    assert limit == pytest.approx(21.67 * (1 / 5000 + 1 / 1000), rel=0.1)
    assert psi(np.array([0, 7]), np.array([0, 7])) == 0 < psi(np.array([0, 7]), np.array([7, 0]))


def test_a_model_that_is_always_as_sure_and_an_input_without_a_row_are_no_trouble() -> None:
    made = described(table(texts(50, 0)), np.tile([0.9, 0.1], (30, 1)))
    assert verdicts(made, [], np.zeros((0, 2))) == {"whole": "not compared"}


def test_drift_between_splits_is_named_by_what_differs() -> None:
    skewed = table(texts(400, 3), labels=["bad"] * 4 + ["good"])
    entries = drifted({"train": table(texts(2000, 1)), "validation": table(texts(400, 2)), "test": skewed})
    found = {(entry["split"], entry["measure"]) for entry in entries if entry["verdict"] != "no sign of drift"}
    assert found == {("test", "labels")} and len(entries) == 8
    assert not [entry for entry in entries if "reason" in entry], "no words of the data are in the report"


def test_words_of_single_groups_are_no_drift() -> None:
    """Each film has names of its own, and stands in one split alone: what is learnt of it must not count."""

    def films(count: int, seed: int) -> pl.DataFrame:
        names = [f"{seed}x{index // 10}" for index in range(count)]
        rows = [f"{text} hero{name} town{name}" for text, name in zip(texts(count, seed), names, strict=True)]
        return table(rows, group=names)

    entries = drifted({"train": films(1000, 1), "validation": films(200, 2), "test": films(200, 3)})
    assert {entry["verdict"] for entry in entries} == {"no sign of drift"}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (4, 2, 3), (50, 0, 5)])
def test_tiny_splits_are_no_error_and_the_order_of_rows_is_none(sizes: tuple[int, int, int]) -> None:
    splits = {name: table(texts(size, seed)) for seed, (name, size) in enumerate(zip(SPLITS, sizes, strict=True))}
    entries = drifted(splits)
    assert {entry["split"] for entry in entries} == {name for name in SPLITS[1:] if splits[name].height}
    assert drifted({name: rows.reverse() for name, rows in splits.items()}) == entries
