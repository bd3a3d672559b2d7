"""A new row that repeats, leaks or lost its label is dropped, and every one dropped is accounted for."""

from typing import Any

import polars as pl
import pytest

from stages.augment.__main__ import accepted
from stages.common.params import AugmentParams
from stages.tasks.base import Task
from tests.unit.small_records import NUMBERS, SETS, TASK, jaccard, make_records, shingles

GOOD, BAD = ["great", "lovely", "brilliant", "moving"], ["awful", "boring", "dreadful", "flat"]


def table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    extra = [pl.Series(name, [row.pop(name, None) for row in rows], dtype=pl.String) for name in ("parent", "method")]
    return make_records(rows).with_columns(extra)


TRAIN = table(
    [
        {"id": f"train{number}{label}", "text": f"a {word} film about thing {number}", "label": label}
        for label, words in (("good", GOOD), ("bad", BAD))
        for number, word in enumerate(words * 5)
    ]
)
HELD_OUT = table([{"id": "test0", "text": "the quick brown fox jumps over the lazy dog", "label": "good"}])
NO_LABEL_CHECK = {"label_preservation": {"enabled": False}}


def made_rows(*texts: str, label: str = "good", pairs: list[str | None] | None = None) -> pl.DataFrame:
    return table(
        [
            {"id": f"new{number}", "text": text, "text_pair": pair, "label": label, "parent": f"train0{label}"}
            for number, (text, pair) in enumerate(zip(texts, pairs or [None] * len(texts), strict=True))
        ]
    ).with_columns(method=pl.lit("random_swap"))


def dropped(
    made: pl.DataFrame, train: pl.DataFrame, held_out: pl.DataFrame = HELD_OUT, task: Task = TASK, **params: Any
) -> dict[str, str]:
    """Which rule dropped which row."""
    _, ledger = accepted(made, train, held_out, task, AugmentParams(**params), seed=13)
    return dict(ledger.rejected.select("id", "rule").iter_rows())


def test_what_a_training_row_or_another_new_row_says_already_is_dropped() -> None:
    new = made_rows("a great film about thing 0", "a wholly new text", "a wholly new text", "another one")
    assert dropped(new, TRAIN, **NO_LABEL_CHECK) == {
        "new0": "equal_to_a_training_text",
        "new2": "equal_to_another_new_text",
    }


def test_two_texts_of_a_pair_count_together() -> None:
    second = "a long second text about a fox that jumps over dogs, cats and fences"
    train = table([{"id": "t", "text": "one", "text_pair": "two", "label": "good"}])
    held_out = table([{"id": "h", "text": "short", "text_pair": second, "label": "good"}])
    new = made_rows("one", "one", "shorter", "short", pairs=["two", "three", second, "y" * 200])
    assert dropped(new, train, held_out, **NO_LABEL_CHECK) == {
        "new0": "equal_to_a_training_text",  # the same pair; with another second text it is another row
        "new2": "near_a_held_out_text",  # by its second text, though the first differs
    }


def test_the_leak_threshold_says_how_near_is_too_near() -> None:
    near = made_rows("the quick brown fox jumps over the lazy cat")
    similarity = jaccard(shingles(near["text"][0], 5), shingles(HELD_OUT["text"][0], 5))
    for threshold, expected in ((similarity - 0.01, {"new0": "near_a_held_out_text"}), (similarity + 0.01, {})):
        assert dropped(near, TRAIN, leak_threshold=threshold, **NO_LABEL_CHECK) == expected


def test_a_text_that_reads_like_another_label_or_hardly_like_its_own_is_dropped() -> None:
    new = made_rows("an awful and boring film", "a lovely film", "some film that is lovely, and boring, and moving")
    assert dropped(new, TRAIN) == {"new0": "lost_its_label"}
    assert dropped(new, TRAIN, **NO_LABEL_CHECK) == {}
    unsure = dropped(new, TRAIN, label_preservation={"min_probability": 0.7})
    assert unsure == dict.fromkeys(["new0", "new2"], "lost_its_label")
    rare = TRAIN.filter((pl.col("label") == "bad") | pl.col("id").is_in(["train0good", "train1good"]))
    assert dropped(made_rows("a great film"), rare) == {}, "a rare label is not taken for a common one"


def test_the_classifier_says_nothing_of_labels_it_has_not_learnt(capsys: pytest.CaptureFixture[str]) -> None:
    new = made_rows("an awful and boring film", label="other")
    assert dropped(new, TRAIN, label_preservation={"min_probability": 1.0}) == {}
    assert dropped(new, TRAIN.filter(label="good")) == {}
    many = table([{"id": f"t{number}", "text": f"text {number}", "label": f"label {number}"} for number in range(501)])
    assert dropped(made_rows("a new text", label="label 7"), many) == {}
    assert "no new row is checked for its label" in capsys.readouterr().out


def test_each_label_of_a_set_must_still_be_found_and_a_number_must_not_move_far() -> None:
    sets = TRAIN.with_columns(label=pl.when(label="good").then(pl.lit('["film","good"]')).otherwise(pl.lit('["film"]')))
    sets = pl.concat([sets, table([{"id": f"t{n}", "text": f"a book about {n}", "label": "[]"} for n in range(20)])])
    new = made_rows("a lovely film of thing", "an awful film of thing", "a dreadful book 7", label='["film","good"]')
    assert dropped(new, sets, task=SETS) == dict.fromkeys(["new1", "new2"], "lost_its_label")
    assert dropped(made_rows("a lovely book", label='["other"]'), sets, task=SETS) == {}
    numbers = TRAIN.with_columns(label=pl.when(label="good").then(pl.lit("4.5")).otherwise(pl.lit("1")))
    new = made_rows("a lovely film on thing 0", "an awful boring film about thing 0")
    new = new.with_columns(label=pl.lit("4.5"))
    assert dropped(new, numbers, task=NUMBERS) == {"new1": "lost_its_label"}
    assert dropped(new, numbers.with_columns(label=pl.lit("3")), task=NUMBERS) == {}
