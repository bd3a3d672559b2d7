"""Augmentation makes training rows out of training rows, says of each where it comes from, and leaks nothing."""

import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.augment.methods import METHODS
from stages.augment.rows import to_fill_up
from stages.augment.simple import MARKS, punctuation_insertion, random_deletion, random_swap
from stages.augment.words import split
from stages.common.schemas import AugmentedRecords, CleanRecords
from tests.projects import PARAMS, Project
from tests.unit.small_records import FILM_WORDS, make_records
from tests.unit.small_wordnet import write_wordnet

LIGHT = ("random_deletion", "random_swap", "punctuation_insertion")
WORDS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12)
CHANCE = st.floats(0, 1)
SEED = st.integers(0, 1000)


def no_resource(name: str) -> Path:
    pytest.fail(f"asked for {name}")


# ── methods ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(WORDS, CHANCE, SEED)
def test_deletion_keeps_the_order_and_at_least_one_word_swaps_keep_every_word(
    words: list[str], chance: float, seed: int
) -> None:
    kept = random_deletion(words, chance, random.Random(seed))
    assert 1 <= len(kept) <= len(words)
    rest = iter(words)
    assert all(word in rest for word in kept), "no subsequence of the words"
    assert random_deletion(words, 0.0, random.Random(seed)) == words
    assert len(random_deletion(words, 1.0, random.Random(seed))) == 1
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


def test_numbers_and_latin_words_stay_whole_in_a_text_without_spaces() -> None:
    words = ["花", "60", "元", ",", "在", "Café", "看", "3.5", "小", "时", "don't"]
    assert split("".join(words)) == (words, "")
    assert split("a  b,\n") == (["a", "", "b,\n"], " ")


@pytest.mark.parametrize(
    ("method", "made"),
    [
        ("random_deletion", ["a quiet film with great and a weak ending", "这常看很喜欢", "Great"]),
        ("random_swap", ["a quiet great with and actors film weak a ending", "这部喜电非常欢看影很我好", "Great"]),
        (
            "punctuation_insertion",
            ["a ; quiet film ? with great actors and a weak ending", "这部电影非常好看;我很喜欢", "?Great"],
        ),
    ],
)
def test_a_seed_makes_the_texts_it_always_made(method: str, made: list[str]) -> None:
    texts = ["a quiet film with great actors and a weak ending", "这部电影非常好看我很喜欢", "Great"]
    seeds = [f"13 {method} row{at}" for at in range(3)]
    assert METHODS[method](texts, seeds, SimpleNamespace(probability=0.3), no_resource) == made


@given(st.lists(st.sampled_from("abc"), max_size=30), st.floats(0, 1), SEED)
def test_balancing_fills_every_label_up_to_the_target_and_no_further(
    labels: list[str], target: float, seed: int
) -> None:
    ids = [f"row{at}" for at in range(len(labels))]
    chosen = to_fill_up(labels, ids, target, seed)
    assert len(set(chosen)) == len(chosen)
    rows, more = Counter(labels), Counter(labels[at] for at, _ in chosen)
    wanted = round(target * max(rows.values(), default=0))
    assert {label: rows[label] + more[label] for label in rows} == {
        label: max(count, wanted) for label, count in rows.items()
    }
    times = Counter(at for at, _ in chosen)  # all rows of a label have their turn before one has a second
    for label, number in more.items():
        turns = [times[at] for at in range(len(labels)) if labels[at] == label]
        assert max(turns) - min(turns) <= 1, number
    backwards = to_fill_up(labels[::-1], ids[::-1], target, seed)
    assert [(ids[at], time) for at, time in chosen] == [(ids[::-1][at], time) for at, time in backwards]


# ── the stage ───────────────────────────────────────────────────────────────────────────────────────────────────────


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = [*FILM_WORDS, "humour", "drama"]
    return [" ".join(rng.choice(words) + str(rng.randrange(30)) for _ in range(12)) for _ in range(count)]


def put_splits(project: Project, train: list[str], held_out: list[str], labels: list[str] | None = None) -> None:
    half = len(held_out) // 2
    for name, texts in (("train", train), ("validation", held_out[:half]), ("test", held_out[half:])):
        rows = [{"id": f"{name}{at}", "text": text, "group": f"{name} {at}"} for at, text in enumerate(texts)]
        if labels and name == "train":
            rows = [row | {"label": label} for row, label in zip(rows, labels, strict=True)]
        whole = make_records(rows).with_columns(timestamp=pl.lit(None, pl.String), fold=pl.lit(None, pl.Int16))
        CleanRecords.write(whole, project.root / f"data/clean/{name}.parquet")


def augment(project: Project, seed: int = 13, **methods: Any) -> tuple[pl.DataFrame, dict[str, Any]]:
    project.params(seed=seed, augment=methods)
    done = project.python("-m", "stages.augment")
    assert done.returncode == 0, done.stderr
    report = json.loads((project.root / "reports/augment.json").read_text())
    return AugmentedRecords.read(project.root / "data/augmented/train.parquet"), report


DELETION = {"random_deletion": {"share": 0.5, "probability": 0.5}}
EVERY = {**DELETION, "random_swap": {"share": 0.25}, "punctuation_insertion": {"share": 1.0}}


def test_new_rows_have_parent_method_and_label_and_every_old_row_is_there_as_it_was(project: Project) -> None:
    texts = [*sentences(36, seed=1), "Great", "这部电影非常好看我很喜欢", "ok", "fine words"]
    put_splits(project, texts, sentences(10, seed=2))
    held_before = [(project.root / f"data/clean/{name}.parquet").read_bytes() for name in ("validation", "test")]
    rows, report = augment(project, **EVERY)

    train = CleanRecords.read(project.root / "data/clean/train.parquet")
    old, new = rows.filter(pl.col("parent").is_null()), rows.filter(pl.col("parent").is_not_null())
    assert old.select(train.columns).equals(train)
    assert old["method"].null_count() == old.height
    assert set(new["method"]) == set(LIGHT)
    assert set(new["parent"]) <= set(train["id"])
    assert rows["id"].is_unique().all()
    assert not set(new["text"]) & set(train["text"])
    joined = new.join(train, left_on="parent", right_on="id", suffix="_parent")
    assert joined.height == new.height
    for column in ("label", "group", "source", "text_pair", "extra"):
        assert joined[column].eq_missing(joined[f"{column}_parent"]).all()

    # the shares are met before anything is dropped, and what is dropped is counted
    assert report["rows_made"] == 20 + 10 + 40
    assert report["rows_made"] - sum(report["dropped"].values()) == report["rows_added"] == new.height
    assert report["rows_out"] == rows.height == report["rows_in"] + report["rows_added"]
    assert {name: told["added"] for name, told in report["methods"].items()} == Counter(new["method"])
    for told in report["methods"].values():
        assert told["made"] == told["added"] + sum(told["dropped"].values())
    assert {label: told["after"] for label, told in report["labels"].items()} == Counter(rows["label"])
    assert held_before == [(project.root / f"data/clean/{n}.parquet").read_bytes() for n in ("validation", "test")]


def test_without_methods_the_training_rows_pass_as_they_are_and_nothing_heavy_is_loaded(project: Project) -> None:
    put_splits(project, sentences(5, seed=1), sentences(4, seed=2))
    rows, report = augment(project)
    assert rows.height == 5
    assert rows["parent"].null_count() == rows["method"].null_count() == 5
    assert (report["rows_in"], report["rows_made"], report["rows_out"], report["methods"]) == (5, 0, 5, {})
    assert report["labels"] == {"negative": {"before": 3, "after": 3}, "positive": {"before": 2, "after": 2}}
    modules = (
        "import sys, runpy\ntry:\n    runpy.run_module('stages.augment', run_name='__main__')\nexcept SystemExit:\n    "
    )
    loaded = project.python(
        "-c", modules + "print(sorted({'sklearn', 'torch', 'transformers', 'nltk'} & set(sys.modules)))"
    )
    assert loaded.stdout.splitlines()[-1] == "[]", loaded.stdout + loaded.stderr


def test_the_same_seed_gives_the_same_bytes_and_balancing_fills_up_rare_labels(project: Project) -> None:
    labels = ["many"] * 30 + ["few"] * 4
    put_splits(project, sentences(34, seed=1), sentences(6, seed=2), labels)
    methods = {**DELETION, "balance": {"target": 1.0, "method": "random_swap"}}
    rows, report = augment(project, **methods)
    balanced = rows.filter(method="balance")
    assert set(balanced["label"]) == {"few"}
    assert report["labels"]["few"]["after"] == rows.filter(label="few").height > 4
    written = (project.root / "data/augmented/train.parquet").read_bytes()
    augment(project, **methods)
    assert (project.root / "data/augmented/train.parquet").read_bytes() == written
    assert set(augment(project, seed=14, **methods)[0]["text"]) != set(rows["text"])


def test_a_method_needs_its_resource_and_takes_it_from_where_ingest_put_it(project: Project) -> None:
    put_splits(project, [f"This film {at} is good" for at in range(20)], sentences(6, seed=2))
    augment(project)
    before = (project.root / "data/augmented/train.parquet").read_bytes()
    source = PARAMS["ingest"] | {"resources": {"wordnet": {"path": "data/inbox/wordnet"}}}
    project.params(ingest=source, augment={"synonyms": {"share": 1.0}, "label_preservation": {"enabled": False}})
    done = project.python("-m", "stages.augment")
    assert done.returncode == 1
    assert "models/resources/wordnet is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert (project.root / "data/augmented/train.parquet").read_bytes() == before

    write_wordnet(project.root / "models/resources/wordnet", [("noun", {"film": 5, "movie": 3})], {})
    done = project.python("-m", "stages.augment")
    assert done.returncode == 0, done.stderr
    rows = AugmentedRecords.read(project.root / "data/augmented/train.parquet")
    assert set(rows.filter(method="synonyms")["text"]) == {f"This movie {at} is good" for at in range(20)}
