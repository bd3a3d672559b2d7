"""Augmentation makes training rows out of training rows, says of each where it comes from, and leaks nothing."""

import json
import random
from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import FILM_WORDS, Project

from stages.augment.methods import MARKS, METHODS, punctuation_insertion, random_deletion, random_swap, rewrite
from stages.common.near_duplicates import jaccard, shingles
from stages.common.schemas import AugmentedRecords, CleanRecords

Records = Any
WORDS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12)
CHANCE = st.floats(0, 1)
SEED = st.integers(0, 1000)


# ── methods ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(WORDS, CHANCE, SEED)
def test_deletion_keeps_the_order_and_at_least_one_word(words: list[str], chance: float, seed: int) -> None:
    kept = random_deletion(words, chance, random.Random(seed))
    assert 1 <= len(kept) <= len(words)
    rest = iter(words)
    assert all(word in rest for word in kept), "no subsequence of the words"


@given(WORDS, CHANCE, SEED)
def test_swaps_keep_every_word(words: list[str], chance: float, seed: int) -> None:
    assert Counter(random_swap(words, chance, random.Random(seed))) == Counter(words)


@given(WORDS, CHANCE, SEED)
def test_insertion_keeps_the_words_in_order_and_adds_no_more_marks_than_allowed(
    words: list[str], chance: float, seed: int
) -> None:
    made = punctuation_insertion(words, chance, random.Random(seed))
    assert 1 <= len(made) - len(words) <= max(1, round(chance * len(words)))
    rest = iter(made)
    assert all(word in rest for word in words)
    assert sum((Counter(made) - Counter(words)).values()) == len(made) - len(words)
    assert set(Counter(made) - Counter(words)) <= set(MARKS)


@pytest.mark.parametrize(("chance", "kept"), [(0.0, 200), (1.0, 1)])
def test_a_chance_of_nothing_deletes_nothing_and_one_of_all_leaves_one_word(chance: float, kept: int) -> None:
    assert len(random_deletion(["word"] * 200, chance, random.Random(1))) == kept


def test_words_are_deleted_at_about_the_given_chance() -> None:
    assert 1600 <= len(random_deletion(["word"] * 2000, 0.1, random.Random(1))) <= 1900


@given(st.text(min_size=1, max_size=40), st.sampled_from(sorted(METHODS)), CHANCE, SEED)
def test_the_same_seed_makes_the_same_text_and_never_an_empty_one(
    text: str, method: str, chance: float, seed: int
) -> None:
    one = rewrite(text, method, chance, random.Random(seed))
    assert one == rewrite(text, method, chance, random.Random(seed))
    assert one


def test_texts_without_spaces_are_taken_apart_by_character() -> None:
    text = "这部电影非常好看我很喜欢"
    assert set(rewrite(text, "random_deletion", 0.3, random.Random(2))) < set(text)
    assert sorted(rewrite(text, "random_swap", 0.3, random.Random(2))) == sorted(text)
    inserted = rewrite(text, "punctuation_insertion", 0.3, random.Random(2))
    assert "".join(character for character in inserted if character not in MARKS) == text
    assert " " not in inserted


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", ["Great", "好", "x"])
def test_one_word_is_enough_for_every_method(method: str, text: str) -> None:
    for seed in range(20):
        made = rewrite(text, method, 0.5, random.Random(seed))
        assert made
        assert set(made) <= set(text) | set(MARKS)


# ── the stage ───────────────────────────────────────────────────────────────────────────────────────────────────────


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = [*FILM_WORDS, "humour", "drama"]
    return [" ".join(rng.choice(words) + str(rng.randrange(30)) for _ in range(12)) for _ in range(count)]


def put_splits(project: Project, records_of: Records, train: list[str], held_out: list[str]) -> None:
    half = len(held_out) // 2
    for name, texts in (("train", train), ("validation", held_out[:half]), ("test", held_out[half:])):
        rows = [{"id": f"{name}{at}", "text": text, "group": f"{name} {at}"} for at, text in enumerate(texts)]
        CleanRecords.write(records_of(rows), project.root / f"data/clean/{name}.parquet")


def augment(project: Project, seed: int = 13, **methods: Any) -> tuple[pl.DataFrame, dict[str, Any]]:
    project.params(seed=seed, augment=methods)
    done = project.run("-m", "stages.augment")
    assert done.returncode == 0, done.stderr
    report = json.loads((project.root / "reports/augment.json").read_text())
    return AugmentedRecords.read(project.root / "data/augmented/train.parquet"), report


DELETION = {"random_deletion": {"share": 0.5, "probability": 0.5}}
EVERY = {**DELETION, "random_swap": {"share": 0.25}, "punctuation_insertion": {"share": 1.0}}


def test_new_rows_have_parent_method_and_label_and_every_old_row_is_there_as_it_was(
    project: Project, records_of: Records
) -> None:
    texts = [*sentences(36, seed=1), "Great", "这部电影非常好看我很喜欢", "ok", "fine words"]
    put_splits(project, records_of, texts, sentences(10, seed=2))
    held_before = [(project.root / f"data/clean/{name}.parquet").read_bytes() for name in ("validation", "test")]
    rows, report = augment(project, **EVERY)

    train = CleanRecords.read(project.root / "data/clean/train.parquet")
    old, new = rows.filter(pl.col("parent").is_null()), rows.filter(pl.col("parent").is_not_null())
    assert old.select(train.columns).equals(train)
    assert old["method"].null_count() == old.height
    assert set(new["method"]) == set(METHODS)
    assert set(new["parent"]) <= set(train["id"])
    assert rows["id"].is_unique().all()
    assert not set(new["text"]) & set(train["text"])
    joined = new.join(train, left_on="parent", right_on="id", suffix="_parent")
    assert joined.height == new.height
    for column in ("label", "group", "source", "text_pair", "extra"):
        assert joined[column].eq_missing(joined[f"{column}_parent"]).all()

    # the shares are met before anything is dropped, and what is dropped is counted
    assert report["rows_made"] == 20 + 10 + 40
    dropped = report["dropped_as_equal_to_a_training_row"] + report["dropped_as_near_a_held_out_row"]
    assert report["rows_made"] - dropped == report["rows_added"] == new.height
    assert report["rows_out"] == rows.height == report["rows_in"] + report["rows_added"]
    assert report["added_by_method"] == dict(sorted(Counter(new["method"]).items()))
    assert held_before == [(project.root / f"data/clean/{n}.parquet").read_bytes() for n in ("validation", "test")]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_rows(project: Project, records_of: Records) -> None:
    put_splits(project, records_of, sentences(40, seed=1), sentences(10, seed=2))
    first, _ = augment(project, **DELETION)
    written = (project.root / "data/augmented/train.parquet").read_bytes()
    augment(project, **DELETION)
    assert (project.root / "data/augmented/train.parquet").read_bytes() == written
    other, _ = augment(project, seed=14, **DELETION)
    assert first.height == other.height
    assert set(first["text"]) != set(other["text"])


def test_no_new_row_is_near_a_validation_or_test_row(project: Project, records_of: Records) -> None:
    train = sentences(40, seed=1)
    # a training row with some words less: not near enough to be a duplicate, but what is made of the row may be
    held_out = [" ".join(text.split()[:-3]) for text in train[:20]] + sentences(4, seed=3)
    put_splits(project, records_of, train, held_out)
    threshold = 0.5
    rows, report = augment(project, **EVERY, leak_threshold=threshold)
    new = rows.filter(pl.col("parent").is_not_null())
    held = [shingles(text, 5) for text in held_out]
    assert max(jaccard(shingles(text, 5), other) for text in new["text"] for other in held) < threshold
    assert report["dropped_as_near_a_held_out_row"] > 0


def test_without_methods_the_training_rows_pass_as_they_are(project: Project, records_of: Records) -> None:
    put_splits(project, records_of, sentences(5, seed=1), sentences(4, seed=2))
    rows, report = augment(project)
    assert rows.height == 5
    assert rows["parent"].null_count() == rows["method"].null_count() == 5
    assert (report["rows_made"], report["rows_added"], report["added_by_method"]) == (0, 0, {})
