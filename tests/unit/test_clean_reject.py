"""Every row that is kept out has a rule and a reason, and which row stays never depends on the order of the rows."""

import random
from itertools import combinations
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import FILM_WORDS, make_records

from stages.clean.__main__ import cleaned
from stages.clean.reject import (
    conflicting_labels,
    empty_text,
    exact_duplicate,
    near_duplicate,
    out_of_length,
    unlabelled,
)
from stages.clean.rules import rules
from stages.common.ledger import Ledger
from stages.common.near_duplicates import jaccard, shingles
from stages.common.params import CleanParams
from stages.common.schemas import CleanRecords, Decontamination, Rejected

Records = Any
Rows = list[dict[str, str | None]]


AGAINST = pl.DataFrame({"text": ["a rather long text about a film..", "abba"], "source": ["benchmark"] * 2})


def clean(
    records: pl.DataFrame, params: CleanParams | None = None, against: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the stage does before it splits: (kept, rejected), with the account checked."""
    params = params or CleanParams()
    ledger = Ledger("clean", records)
    kept, _ = cleaned(records, params.text_cleaning)
    for rule in rules(params, Decontamination.empty() if against is None else against):
        kept = ledger.apply(rule, kept)
    account = ledger.close(kept.height)
    assert account["rows_in"] == kept.height + ledger.rejected.height
    return kept, ledger.rejected


def test_rows_without_text_are_rejected(records_of: Records) -> None:
    kept, out = empty_text(records_of([{"text": None}, {"text": "here"}]))
    assert (kept["id"].to_list(), out["id"].to_list()) == (["row000001"], ["row000000"])
    assert out["reason"].to_list() == ["the text is empty"]


@pytest.mark.parametrize("label", [None, ""])
def test_rows_without_a_label_are_rejected(records_of: Records, label: str | None) -> None:
    kept, out = unlabelled(records_of([{"text": "a", "label": label}, {"text": "b"}]))
    assert (kept.height, out["reason"].to_list()) == (1, ["there is no label"])


def test_length_counts_characters_and_its_limits_are_allowed(records_of: Records) -> None:
    records = records_of([{"text": text} for text in ("ab", "漢字漢", "abcde", "🎈🎈🎈🎈🎈🎈")])
    kept, out = out_of_length(records, 3, 5)
    assert kept["text"].to_list() == ["漢字漢", "abcde"]
    assert out["reason"].to_list() == ["2 characters, outside 3 to 5", "6 characters, outside 3 to 5"]


def test_a_text_under_several_labels_is_rejected_under_each(records_of: Records) -> None:
    records = records_of(
        [
            {"text": "So so", "label": "good"},
            {"text": "so SO", "label": "bad"},
            {"text": "clear", "label": "good"},
            {"text": "clear", "label": "good"},
        ]
    )
    kept, out = conflicting_labels(records)
    assert kept["text"].to_list() == ["clear", "clear"]
    assert set(out["reason"]) == {"the same text has the labels bad, good"}
    assert set(kept.columns) == set(records.columns)


def test_the_second_text_of_a_pair_counts(records_of: Records) -> None:
    records = records_of(
        [
            {"text": "same", "text_pair": "one", "label": "yes"},
            {"text": "same", "text_pair": "two", "label": "no"},
            {"text": "same", "text_pair": None, "label": "no"},
        ]
    )
    assert conflicting_labels(records)[0].height == 3
    assert exact_duplicate(records)[0].height == 3


def test_of_equal_texts_the_one_with_the_smallest_id_stays(records_of: Records) -> None:
    records = records_of([{"id": "b", "text": "same"}, {"id": "a", "text": "SAME"}, {"id": "c", "text": "other"}])
    kept, out = exact_duplicate(records)
    assert kept["id"].to_list() == ["a", "c"]
    assert out.select("id", "reason").rows() == [("b", "the same text as a")]


@pytest.mark.parametrize(
    ("splits", "stays"),
    [
        (("train", "test"), "test"),
        (("train", "validation"), "validation"),
        (("validation", "test"), "test"),
        ((None, "train"), "train"),
        ((None, "test"), "test"),
        (("train", "train"), "train"),
    ],
)
@pytest.mark.parametrize("twin", ["the very same words stand here", "the very same words stand hero"])
def test_duplicates_across_official_splits_never_cost_the_weightier_split_a_row(
    records_of: Records, splits: tuple[str | None, str | None], stays: str, twin: str
) -> None:
    records = records_of(
        [
            {"text": "the very same words stand here", "split": splits[0], "label": "x"},
            {"text": twin, "split": splits[1], "label": "x"},
        ]
    )
    kept, rejected = clean(records)
    assert kept["split"].to_list() == [stays]
    assert rejected.height == 1


def test_near_duplicates_name_the_row_that_stays_and_how_near_it_is(records_of: Records) -> None:
    records = records_of(
        [
            {"id": "a", "text": "a long enough sentence about a film that was good"},
            {"id": "b", "text": "a long enough sentence about a film that was good!", "label": "negative"},
            {"id": "c", "text": "something else altogether"},
        ]
    )
    kept, out = near_duplicate(records, 0.8, 5, 128)
    assert kept["id"].to_list() == ["a", "c"]
    assert out.select("id", "reason").rows() == [("b", "near-duplicate of a (similarity 0.98)")]


def test_a_near_duplicate_with_another_label_is_told(records_of: Records) -> None:
    texts = ["a long enough sentence about a film that was good", "a long enough sentence about a film that was good!"]
    records = records_of([{"text": texts[0], "label": "bad"}, {"text": texts[1], "label": "good"}])
    _, out = near_duplicate(records, 0.8, 5, 128)
    assert out["reason"].to_list() == ["near-duplicate of row000000 (similarity 0.98), which has another label: bad"]


def test_a_row_near_a_rejected_row_alone_may_stay(records_of: Records) -> None:
    texts = {"a": "abcdefghijklmnopqrstuvwxyz", "b": "abcdefghijklmnopqrstuvw123", "c": "abcdefghijklmnopqrst456123"}
    sets = {name: shingles(text, 3) for name, text in texts.items()}
    near = 0.7
    assert jaccard(sets["a"], sets["b"]) >= near > jaccard(sets["a"], sets["c"])
    kept, out = near_duplicate(records_of([{"id": k, "text": v} for k, v in texts.items()]), near, 3, 128)
    assert (kept["id"].to_list(), out["id"].to_list()) == (["a", "c"], ["b"])


def test_near_duplicates_are_left_alone_when_the_search_is_off(records_of: Records) -> None:
    records = records_of([{"text": "a long enough sentence here"}, {"text": "a long enough sentence hera"}])
    assert clean(records, CleanParams(near_duplicates={"enabled": False}))[0].height == 2
    assert clean(records, CleanParams(near_duplicates={"threshold": 0.7}))[0].height == 1


def test_each_reject_says_which_rule_kept_it_out(records_of: Records) -> None:
    records = records_of(
        [
            {"text": "<br>"},
            {"text": "a good one", "label": None},
            {"text": "ab"},
            {"text": "so so film", "label": "good"},
            {"text": "So so film", "label": "bad"},
            {"text": "a film to keep and to see again", "label": "good"},
            {"text": "a film to keep  and to see again", "label": "good"},
            {"text": "a film to keep and to see again!", "label": "good"},
        ]
    )
    kept, rejected = clean(records)
    assert kept["id"].to_list() == ["row000005"]
    assert sorted(rejected.select("id", "rule").rows()) == [
        ("row000000", "empty_text"),
        ("row000001", "unlabelled"),
        ("row000002", "length"),
        ("row000003", "conflicting_labels"),
        ("row000004", "conflicting_labels"),
        ("row000006", "exact_duplicate"),
        ("row000007", "near_duplicate"),
    ]
    assert rejected["reason"].str.len_chars().min() > 5


def test_no_two_kept_rows_nearly_equal_each_other(records_of: Records) -> None:
    rng = random.Random(11)
    words = [*FILM_WORDS, "humour", "drama"]
    rows: Rows = []
    for _ in range(150):
        text = " ".join(rng.choice(words) + str(rng.randrange(9)) for _ in range(10))
        rows += [
            {"text": text},
            {"text": text.replace(text[5], "z", 1)},
            {"text": text + rng.choice(["!", " ...", ""])},
        ]
    kept, _ = clean(records_of([{**row, "label": "x"} for row in rows]))
    assert 150 <= kept.height < 350
    sets = [shingles(text, 5) for text in kept["text"]]
    assert max(jaccard(one, other) for one, other in combinations(sets, 2)) < 0.8


# ── for any data at all ─────────────────────────────────────────────────────────────────────────────────────────────

COMMON = st.sampled_from(
    ["good film", "Good film", "good film!", "a rather long text about a film", "a rather long text about a film.", "x"]
)
ROW = st.fixed_dictionaries(
    {
        "text": st.none() | COMMON | st.text(max_size=30) | st.text("ab <>&;", max_size=12),
        "text_pair": st.none() | st.sampled_from(["", "pair"]),
        "label": st.none() | st.sampled_from(["", "good", "bad"]),
        "split": st.none() | st.sampled_from(["train", "validation", "test"]),
        "group": st.none() | st.sampled_from(["g", "h"]),
        "timestamp": st.none() | st.sampled_from(["2024-05-01", "1700000000", "soon"]),
    }
)
EVERYTHING = CleanParams(
    normalization="NFKC",
    strip_markdown=True,
    simplify_chinese=True,
    pii={"kinds": ["email", "phone", "card"], "phone_region": "US"},
    languages={"keep": ["en"]},
    split={"by": "time"},
)


@given(st.lists(ROW, max_size=14), st.randoms(use_true_random=False), st.sampled_from([CleanParams(), EVERYTHING]))
def test_rows_in_are_rows_kept_and_rows_rejected_in_any_order_whatever_the_data(
    rows: Rows, rng: random.Random, params: CleanParams
) -> None:
    records = make_records(rows)
    kept, rejected = clean(records, params, AGAINST)
    assert sorted([*kept["id"], *rejected["id"]]) == sorted(records["id"])
    CleanRecords.validate(kept.with_columns(fold=pl.lit(None, pl.Int16)), lazy=True)
    Rejected.validate(rejected, lazy=True)
    assert rejected["reason"].str.len_chars().fill_null(0).gt(0).all()

    order = list(range(records.height))
    rng.shuffle(order)
    again, rejected_again = clean(records[order], params, AGAINST)
    assert set(again["id"]) == set(kept["id"])
    assert dict(rejected_again.select("id", "reason").iter_rows()) == dict(rejected.select("id", "reason").iter_rows())


@given(st.lists(ROW, min_size=1, max_size=8))
def test_what_was_kept_is_kept_again(rows: Rows) -> None:
    kept, _ = clean(make_records(rows), against=AGAINST)
    again = kept
    for rule in rules(CleanParams(), AGAINST):
        again, out = rule(again)
        assert out.is_empty()
    assert again.equals(kept)


def test_huge_texts_are_counted_and_rejected_like_any_other(records_of: Records) -> None:
    records = records_of([{"text": "x" * 3_000_000}, {"text": "word " * 400_000}, {"text": "an ordinary text"}])
    kept, rejected = clean(records)
    assert kept["text"].to_list() == ["an ordinary text"]
    assert rejected["rule"].to_list() == ["length", "length"]


def test_no_rows_give_no_rows(records_of: Records) -> None:
    kept, rejected = clean(records_of([]))
    assert (kept.height, rejected.height) == (0, 0)
