"""Augmentation makes training rows out of training rows, says of each where it comes from, and leaks nothing."""

import json
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.augment.rows import METHODS, to_fill_up
from stages.augment.words import MARKS, punctuation_insertion, random_deletion, random_swap, split
from stages.common.schemas import AugmentedRecords, CleanRecords
from tests.projects import PARAMS, Project
from tests.unit.small_records import FILM_WORDS, clean_rows
from tests.unit.small_wordnet import write_wordnet

WORDS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12)
CHANCE = st.floats(0, 1)
SEED = st.integers(0, 1000)

# ── methods ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(WORDS, CHANCE, SEED)
def test_deletion_keeps_the_order_and_a_word_swaps_keep_every_word_and_insertion_adds_marks_alone(
    words: list[str], chance: float, seed: int
) -> None:
    kept = random_deletion(words, chance, random.Random(seed))
    assert 1 <= len(kept) <= len(words)
    rest = iter(words)
    assert all(word in rest for word in kept), "no subsequence of the words"
    assert random_deletion(words, 0.0, random.Random(seed)) == words
    assert len(random_deletion(words, 1.0, random.Random(seed))) == 1
    assert Counter(random_swap(words, chance, random.Random(seed))) == Counter(words)
    marked = punctuation_insertion(words, chance, random.Random(seed))
    assert 1 <= len(marked) - len(words) <= max(1, round(chance * len(words)))
    rest = iter(marked)
    assert all(word in rest for word in words)
    added = Counter(marked) - Counter(words)
    assert sum(added.values()) == len(marked) - len(words) and set(added) <= set(MARKS)


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
    seeds = [f"13 {method} row{number}" for number in range(3)]
    resource = lambda name: pytest.fail(f"asked for {name}")  # noqa: E731
    assert METHODS[method](texts, seeds, SimpleNamespace(probability=0.3), resource) == made


@given(st.lists(st.sampled_from("abc"), max_size=30), st.floats(0, 1), SEED)
def test_balancing_fills_every_label_up_to_the_target_and_no_further(
    labels: list[str], target: float, seed: int
) -> None:
    ids = [f"row{number}" for number in range(len(labels))]
    chosen = to_fill_up(labels, ids, target, seed)
    assert len(set(chosen)) == len(chosen)
    rows, more = Counter(labels), Counter(labels[row] for row, _ in chosen)
    wanted = round(target * max(rows.values(), default=0))
    assert rows + more == {label: max(count, wanted) for label, count in rows.items()}
    times = Counter(row for row, _ in chosen)  # all rows of a label are chosen before one is chosen again
    for label in more:
        of_label = [times[row] for row in range(len(labels)) if labels[row] == label]
        assert max(of_label) - min(of_label) <= 1
    backwards = to_fill_up(labels[::-1], ids[::-1], target, seed)
    assert [(ids[row], time) for row, time in chosen] == [(ids[::-1][row], time) for row, time in backwards]


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
        CleanRecords.write(clean_rows(rows), project.root / f"data/clean/{name}.parquet")


def augment(
    project: Project, *command: str, seed: int = 13, ingest: Any = PARAMS["ingest"], **methods: Any
) -> tuple[pl.DataFrame, dict[str, Any], str]:
    project.params(seed=seed, ingest=ingest, augment=methods)
    done = project.run("python", *(command or ("-m", "stages.augment")))
    report = json.loads((project.root / "reports/augment.json").read_text())
    return AugmentedRecords.read(project.root / "data/augmented/train.parquet"), report, done.stdout


DELETION = {"random_deletion": {"share": 0.5, "probability": 0.5}}
EVERY = {**DELETION, "random_swap": {"share": 0.25}, "punctuation_insertion": {"share": 1.0}}
UNCHECKED = {"label_preservation": {"enabled": False}}


def test_new_rows_have_parent_method_and_label_and_every_old_row_is_there_as_it_was(project: Project) -> None:
    texts = [*sentences(36, seed=1), "Great", "这部电影非常好看我很喜欢", "ok", "fine words"]
    put_splits(project, texts, sentences(10, seed=2))
    held_out = [project.root / f"data/clean/{name}.parquet" for name in ("validation", "test")]
    before = [file.read_bytes() for file in held_out]
    rows, report, _ = augment(project, **EVERY)

    train = CleanRecords.read(project.root / "data/clean/train.parquet")
    old, new = rows.filter(pl.col("parent").is_null()), rows.filter(pl.col("parent").is_not_null())
    assert old.select(train.columns).equals(train)
    assert old["method"].null_count() == old.height and set(new["method"]) == set(EVERY)
    assert not set(new["text"]) & set(train["text"])
    joined = new.join(train, left_on="parent", right_on="id", suffix="_parent")
    assert joined.height == new.height
    for column in ("label", "group", "source", "text_pair", "extra"):
        assert joined[column].eq_missing(joined[f"{column}_parent"]).all()

    # the shares are met before anything is dropped, and what is dropped is counted
    assert report["rows_made"] == 20 + 10 + 40
    assert report["rows_made"] - sum(report["dropped"].values()) == report["rows_added"] == new.height
    assert report["rows_out"] == rows.height == report["rows_in"] + report["rows_added"]
    for name, counts in report["methods"].items():
        assert counts["made"] - sum(counts["dropped"].values()) == counts["added"] == new.filter(method=name).height
    assert {label: counts["after"] for label, counts in report["labels"].items()} == Counter(rows["label"])
    assert before == [file.read_bytes() for file in held_out]


def test_without_methods_the_training_rows_pass_as_they_are_and_nothing_heavy_is_loaded(project: Project) -> None:
    put_splits(project, sentences(5, seed=1), sentences(4, seed=2))
    stage = "try:\n    runpy.run_module('stages.augment', run_name='__main__')\nexcept SystemExit:\n    "
    heavy = "print(sorted({'sklearn', 'torch', 'transformers', 'nltk'} & set(sys.modules)))"
    rows, report, output = augment(project, "-c", f"import sys, runpy\n{stage}{heavy}")
    assert output.splitlines()[-1] == "[]"
    assert rows.height == 5
    assert rows["parent"].null_count() == rows["method"].null_count() == 5
    assert (report["rows_in"], report["rows_made"], report["rows_out"], report["methods"]) == (5, 0, 5, {})
    assert report["labels"] == {"negative": {"before": 3, "after": 3}, "positive": {"before": 2, "after": 2}}


def test_the_same_seed_gives_the_same_bytes_and_balancing_fills_up_rare_labels(project: Project) -> None:
    labels = ["many"] * 30 + ["few"] * 4
    put_splits(project, sentences(34, seed=1), sentences(6, seed=2), labels)
    methods = {**DELETION, **UNCHECKED, "balance": {"target": 1.0, "method": "random_swap"}}
    rows, report, _ = augment(project, **methods)
    assert set(rows.filter(method="balance")["label"]) == {"few"}
    assert report["labels"]["few"]["after"] == rows.filter(label="few").height > 4
    written = (project.root / "data/augmented/train.parquet").read_bytes()
    augment(project, **methods)
    assert (project.root / "data/augmented/train.parquet").read_bytes() == written
    assert set(augment(project, seed=14, **methods)[0]["text"]) != set(rows["text"])


def test_a_method_needs_its_resource_and_takes_it_from_where_ingest_put_it(project: Project) -> None:
    put_splits(project, [f"This film {number} is good" for number in range(20)], sentences(6, seed=2))
    before = project.file("data/augmented/train.parquet", "of an earlier run").read_bytes()
    ingest = PARAMS["ingest"] | {"resources": {"wordnet": {"path": "data/inbox/wordnet"}}}
    synonyms = {"synonyms": {"share": 1.0}, **UNCHECKED}
    project.params(ingest=ingest, augment=synonyms)
    done = project.python("-m", "stages.augment")
    assert done.returncode == 1
    assert "models/resources/wordnet is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert (project.root / "data/augmented/train.parquet").read_bytes() == before

    write_wordnet(project.root / "models/resources/wordnet", [("noun", {"film": 5, "movie": 3})], {})
    rows, *_ = augment(project, ingest=ingest, **synonyms)
    assert set(rows.filter(method="synonyms")["text"]) == {f"This movie {number} is good" for number in range(20)}
