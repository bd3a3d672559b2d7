"""A new row that repeats, leaks or lost its label is dropped, and every one dropped is accounted for."""

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.augment.__main__ import diversity, report
from stages.augment.filters import guarded
from stages.common.params import AugmentParams
from stages.common.text.near_duplicates import jaccard, shingles
from tests.unit.small_records import make_records

GOOD, BAD = ["great", "lovely", "brilliant", "moving"], ["awful", "boring", "dreadful", "flat"]


def table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    extra = [pl.Series(name, [row.get(name) for row in rows], dtype=pl.String) for name in ("parent", "method")]
    return make_records([{k: v for k, v in row.items() if k not in ("parent", "method")} for row in rows]).with_columns(
        extra
    )


def train_rows() -> pl.DataFrame:
    return table(
        [
            {"id": f"train{number}{label}", "text": f"a {word} film about thing {number}", "label": label}
            for label, words in (("good", GOOD), ("bad", BAD))
            for number, word in enumerate(words * 5)
        ]
    )


def made_rows(*texts: str, label: str = "good", pairs: list[str | None] | None = None) -> pl.DataFrame:
    return table(
        [
            {"id": f"new{at}", "text": text, "text_pair": (pairs or [None] * len(texts))[at], "label": label}
            | {"parent": f"train0{label}", "method": "random_swap"}
            for at, text in enumerate(texts)
        ]
    )


def rules_of(made: pl.DataFrame, train: pl.DataFrame, held_out: pl.DataFrame, **params: Any) -> dict[str, str]:
    """Which rule dropped which row."""
    _, ledger = guarded(made, train, held_out, AugmentParams(**params), seed=13)
    return dict(ledger.rejected.select("id", "rule").iter_rows())


HELD_OUT = table([{"id": "test0", "text": "the quick brown fox jumps over the lazy dog", "label": "good"}])
NO_LABEL_CHECK = {"label_preservation": {"enabled": False}}


def test_what_a_training_row_or_another_new_row_says_already_is_dropped() -> None:
    new = made_rows("a great film about thing 0", "a wholly new text", "a wholly new text", "another one")
    assert rules_of(new, train_rows(), HELD_OUT, **NO_LABEL_CHECK) == {
        "new0": "equal_to_a_training_text",
        "new2": "equal_to_another_new_text",
    }


def test_two_texts_of_a_pair_count_together() -> None:
    second = "a long second text about a fox that jumps over dogs, cats and fences"
    train = table([{"id": "t", "text": "one", "text_pair": "two", "label": "good"}])
    held_out = table([{"id": "h", "text": "short", "text_pair": second, "label": "good"}])
    new = made_rows("one", "one", "shorter", "short", pairs=["two", "three", second, "y" * 200])
    assert rules_of(new, train, held_out, **NO_LABEL_CHECK) == {
        "new0": "equal_to_a_training_text",  # the same pair; with another second text it is another row
        "new2": "near_a_held_out_text",  # by its second text, though the first differs
    }


def test_the_leak_threshold_says_how_near_is_too_near() -> None:
    near = made_rows("the quick brown fox jumps over the lazy cat")
    similarity = jaccard(shingles(near["text"][0], 5), shingles(HELD_OUT["text"][0], 5))
    for threshold, dropped in ((similarity - 0.01, {"new0": "near_a_held_out_text"}), (similarity + 0.01, {})):
        assert rules_of(near, train_rows(), HELD_OUT, leak_threshold=threshold, **NO_LABEL_CHECK) == dropped


def test_a_text_that_reads_like_another_label_or_hardly_like_its_own_is_dropped() -> None:
    new = made_rows("an awful and boring film", "a lovely film", "some film that is lovely, and boring, and moving")
    assert rules_of(new, train_rows(), HELD_OUT) == {"new0": "lost_its_label"}
    assert rules_of(new, train_rows(), HELD_OUT, **NO_LABEL_CHECK) == {}
    unsure = rules_of(new, train_rows(), HELD_OUT, label_preservation={"min_probability": 0.7})
    assert unsure == dict.fromkeys(["new0", "new2"], "lost_its_label")
    rare = train_rows().filter((pl.col("label") == "bad") | pl.col("id").is_in(["train0good", "train1good"]))
    assert rules_of(made_rows("a great film"), rare, HELD_OUT) == {}, "a rare label is not taken for a common one"


def test_the_classifier_says_nothing_of_labels_it_has_not_learnt(capsys: pytest.CaptureFixture[str]) -> None:
    train = train_rows()
    new = made_rows("an awful and boring film", label="other")
    assert rules_of(new, train, HELD_OUT, label_preservation={"min_probability": 1.0}) == {}
    assert rules_of(new, train.filter(label="good"), HELD_OUT) == {}
    many = table([{"id": f"t{at}", "text": f"text {at}", "label": f"label {at}"} for at in range(501)])
    assert rules_of(made_rows("a new text", label="label 7"), many, HELD_OUT) == {}
    assert "no new row is checked for its label" in capsys.readouterr().out


COMMON = ["a great film about thing 0", HELD_OUT["text"][0], "an awful film", "a new one", "ok", "这部电影"]
TEXTS = st.sampled_from(COMMON) | st.text(min_size=1, max_size=20)


@pytest.mark.filterwarnings("ignore")
@given(
    st.lists(
        st.tuples(TEXTS, st.sampled_from(["good", "bad"]), st.sampled_from(["random_swap", "balance"])), max_size=12
    ),
    st.booleans(),
)
def test_rows_made_are_added_or_dropped_for_a_reason(rows: list[tuple[str, str, str]], check: bool) -> None:
    train = train_rows()
    made = table(
        [
            {"id": f"new{at}", "text": text, "label": label, "parent": f"train0{label}", "method": method}
            for at, (text, label, method) in enumerate(rows)
        ]
    )
    kept, ledger = guarded(made, train, HELD_OUT, AugmentParams(label_preservation={"enabled": check}), seed=1)
    assert sorted([*kept["id"], *ledger.rejected["id"]]) == sorted(made["id"])
    assert kept["id"].to_list() == [row for row in made["id"] if row in set(kept["id"])]
    of_methods: Any = report(train, made, kept, ledger)["methods"]
    assert {name: of["made"] for name, of in of_methods.items()} == Counter(method for *_, method in rows)
    assert all(of["made"] == of["added"] + sum(of["dropped"].values()) for of in of_methods.values())
    assert not set(kept["text"]) & {*train["text"], *HELD_OUT["text"]}
    assert kept["text"].is_unique().all()


def test_the_report_says_how_much_new_there_is() -> None:
    train = table([{"id": "one", "text": "aaaa bbbb"}, {"id": "two", "text": "cccc dddd"}])
    rows = [("x", "bbbb aaaa bbbb aaaa", "one"), ("y", "cccc dddd", "two"), ("z", "cccc dddd", "two")]
    made = table([{"id": row, "text": text, "parent": parent, "method": "m"} for row, text, parent in rows])
    similar = jaccard(shingles("bbbb aaaa bbbb aaaa", 5), shingles("aaaa bbbb", 5))
    assert diversity(made, made[:2], train) == {
        "distinct_texts": round(2 / 3, 4),
        "similarity_to_parent": round((similar + 1) / 2, 4),
        "length_ratio": round((19 / 9 + 1) / 2, 4),
    }
    assert diversity(made, made.clear(), train)["similarity_to_parent"] is None
