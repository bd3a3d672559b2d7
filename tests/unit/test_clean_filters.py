"""Every row that is kept out has a rule and a reason, and which row stays never depends on the order of the rows."""

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.__main__ import cleaned
from stages.clean.filters import contaminated, merged_targets, other_language, rules, unreadable_timestamp
from stages.common.errors import AttuneError
from stages.common.params import CleanParams
from stages.common.params.clean import Languages, NearDuplicates
from stages.common.pipeline.validation import Ledger
from stages.common.schemas import CleanRecords, Decontamination, Rejected
from stages.tasks.base import Task
from tests.unit.small_records import NUMBERS, TASK, make_records

Rows = list[dict[str, str | None]]


def listed(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(Decontamination.columns(), pl.String), orient="row")


def applied(
    records: pl.DataFrame, params: CleanParams, against: pl.DataFrame, task: Task = TASK
) -> tuple[pl.DataFrame, pl.DataFrame]:
    ledger, records = Ledger("clean", records.height), task.grouped(records, params)
    for name, rule in rules(params, against, task).items():
        records = ledger.apply(name, rule, records)
    ledger.close(records.height)
    return records, ledger.rejected


def clean(rows: Rows, **params: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the stage does with rows that have a text before it splits them: (kept, rejected)."""
    records, _ = cleaned(make_records(rows), CleanParams(**params).text_cleaning)
    return applied(records.drop_nulls("text"), CleanParams(**params), listed())


def out_of(rows: Rows, **params: Any) -> list[tuple[str, str, str]]:
    return clean(rows, **params)[1].select("id", "rule", "reason").rows()


def test_rows_without_a_label_and_of_another_length_in_characters_are_rejected_with_the_reason() -> None:
    rows: Rows = [{"text": text} for text in ("ab", "漢字漢", "abcde", "🎈🎈🎈🎈🎈🎈")]
    rows += [{"text": "one", "label": None}, {"text": "two", "label": ""}]
    assert sorted(out_of(rows, length={"min": 3, "max": 5})) == [
        ("row000000", "length", "2 characters, outside 3 to 5"),
        ("row000003", "length", "6 characters, outside 3 to 5"),
        ("row000004", "unlabelled", "there is no label"),
        ("row000005", "unlabelled", "there is no label"),
    ]


def test_rows_without_a_readable_time_are_rejected_with_the_reason() -> None:
    rows: Rows = [{"timestamp": text} for text in ("2019", " ", "soon" * 100)]
    rows += [{"split": "test"}]  # an official row needs no time
    unread = f"the timestamp {'soon' * 10} is neither ISO 8601 nor Unix time"
    assert unreadable_timestamp(make_records(rows)).to_list() == [None, "there is no timestamp", unread, None]


def test_a_text_under_several_labels_is_rejected_under_each_and_labels_are_listed() -> None:
    rows: Rows = [{"text": "So so", "label": "good"}, {"text": "so SO", "label": "bad"}]
    rows += [{"text": "the rest", "label": f"label {index}"} for index in range(7)]
    kept, out = clean([*rows, {"text": "clear", "label": "good"}])
    assert kept["text"].to_list() == ["clear"]
    reasons = out.filter(rule="conflicting_labels")["reason"]
    assert reasons[:2].to_list() == ["the same text has the labels bad, good"] * 2
    assert set(reasons[2:]) == {"the same text has the labels label 0, label 1, label 2, label 3, label 4, …"}


def test_numbers_that_hardly_differ_become_one_and_only_others_contradict() -> None:
    near = "a long enough sentence about a film that was good"
    texts = {"So so": "1", "so SO": "2", "worse": "0", "WORSE": "3", near: "4", f"{near}!": "4.5", f"{near}?": "1"}
    records = make_records([{"text": text, "label": label} for text, label in texts.items()])
    records, merged = merged_targets(records, NUMBERS, CleanParams())
    assert merged == 2 and records["label"].to_list() == ["1.5", "1.5", "0", "3", "4", "4.5", "1"]
    kept, out = applied(records, CleanParams(), listed(), NUMBERS)
    assert dict(kept.select("text", "label").iter_rows()) == {"So so": "1.5", near: "4"}
    reasons = dict(out.select("text", "reason").iter_rows())
    assert {reasons[text] for text in ("worse", "WORSE")} == {"the same text has the labels 0, 3"}
    assert reasons[f"{near}!"].endswith("(similarity 0.98)")
    assert reasons[f"{near}?"].endswith(", which has another label: 4")


def test_of_equal_texts_the_one_with_the_smallest_id_stays_and_the_second_text_of_a_pair_counts() -> None:
    rows: Rows = [{"id": "b", "text": "same"}, {"id": "a", "text": "SAME"}]
    rows += [{"text": "same", "text_pair": "one"}, {"text": "same", "text_pair": "two"}]
    assert out_of([row | {"label": "x"} for row in rows]) == [("b", "exact_duplicate", "the same text as a")]


@pytest.mark.parametrize("duplicate", ["the very same words stand here", "the very same words stand hero"])
@pytest.mark.parametrize("splits", [("train", "validation"), ("validation", "test"), (None, "train")])
def test_duplicates_across_official_splits_never_cost_a_held_out_split_a_row(
    splits: tuple[str | None, str], duplicate: str
) -> None:
    texts = ("the very same words stand here", duplicate)
    rows: Rows = [{"text": text, "split": name, "label": "x"} for text, name in zip(texts, splits, strict=True)]
    assert clean(rows)[0]["split"].to_list() == [splits[1]]


def test_near_duplicates_name_the_row_that_stays_how_near_it_is_and_another_label() -> None:
    text = "a long enough sentence about a film that was good"
    texts = {"b": f"{text}!", "a": text, "c": "something else altogether", "d": f"{text}?"}
    rows: Rows = [{"id": row, "text": text, "label": "y" if row == "d" else "x"} for row, text in texts.items()]
    assert out_of(rows) == [
        ("b", "near_duplicate", "near-duplicate of a (similarity 0.98)"),
        ("d", "near_duplicate", "near-duplicate of a (similarity 0.98), which has another label: x"),
    ]
    assert out_of(rows, near_duplicates={"enabled": False}) == []


LONG = "the film tells a story of an actor who forgets the scene and loses the plot at the end of the day"


def contamination(rows: Rows, against: pl.DataFrame, **near: Any) -> list[str | None]:
    return contaminated(make_records(rows), against, NearDuplicates(**near)).to_list()


def test_equal_texts_go_without_regard_to_case_and_nearly_equal_ones_with_their_similarity() -> None:
    rows: Rows = [{"text": text} for text in ("A good film", "A good day", LONG + "!", LONG[::-1], LONG[:50])]
    against = listed(("a good Film", "glue/sst2"), (LONG, "mine.csv"))
    same, near = "the same text as one of glue/sst2", "nearly the same text as one of mine.csv (similarity 0.99)"
    assert contamination(rows, against) == [same, None, near, None, None]
    for off in ({"enabled": False}, {"threshold": 1.0}):
        assert contamination(rows, against, **off) == [same, *[None] * 4]


def test_the_two_texts_of_a_pair_count_as_one_text_and_the_order_of_a_benchmark_plays_no_part() -> None:
    rows: Rows = [{"text": "Is it good?", "text_pair": "It is."}, {"text": "Is it good?", "text_pair": LONG}]
    against = listed(("is it good? it is.", "rte"), ("is it good?", "rte"))
    assert contamination(rows, against) == ["the same text as one of rte", None]
    against = listed(*((LONG + letter, f"set {letter}") for letter in "dbeac"))
    assert contamination([{"text": LONG}], against) == ["nearly the same text as one of set a (similarity 0.99)"]


ENGLISH = "A remarkable meditation on the nature of revolution, told in long and patient takes."
GERMAN = "Ein langweiliger Film, der seine Zuschauer zwei Stunden lang nicht ernst nimmt."
SPANISH = "Una película oscura, precisa, por momentos grandiosa y casi siempre conmovedora."
CANTONESE = "呢套戲真係好好睇，啲演員做得好好，唔好錯過。"


def languages(keep: list[str], *texts: str | None, sure: float = 0.8, pair: str | None = None) -> list[str | None]:
    records = make_records([{"text": text, "text_pair": pair} for text in texts])
    return other_language(records, Languages(keep=keep, min_confidence=sure)).to_list()


def test_a_text_surely_in_another_language_goes_and_the_reason_names_it() -> None:
    reasons = languages(["en", "de"], ENGLISH, GERMAN, SPANISH, CANTONESE)
    assert [reason and reason[:18] for reason in reasons] == [None, None, "the language is es", "the language is zh"]
    assert languages(["zh"], CANTONESE) == [None]
    assert languages(["en"], "OK", pair=GERMAN) != [None] == languages(["en"], "OK", pair=ENGLISH)
    with pytest.raises(AttuneError, match=r"clean.languages.keep names 'xx'[^\n]*\n  → it knows af, .*, zu$"):
        languages(["en", "xx"], ENGLISH)


def test_short_unsure_and_letterless_texts_stay_and_min_confidence_decides_what_is_sure() -> None:
    texts = ["5/10 :-)", "👍", "Sehr gut", "haha haha haha", "好看"]
    assert languages(["en"], *texts) == [None] * len(texts)
    assert languages(["en"], "Das war sehr gut", sure=0.3) != [None]
    assert languages(["en"], "Das war sehr gut", sure=0.99) == [None]


AGAINST = listed(("a rather long text about a film..", "benchmark"), ("abba", "benchmark"))
COMMON = st.sampled_from(["a film", "A film", "a rather long text about a film", "a rather long text about a film."])
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
EVERYTHING: dict[str, Any] = {
    "normalization": "NFKC",
    "strip_markdown": True,
    "simplify_chinese": True,
    "pii": {"kinds": ["email", "phone", "card"], "phone_region": "US"},
    "languages": {"keep": ["en"], "min_confidence": 0.0},
    "split": {"by": "time"},
}


@given(st.lists(ROW, max_size=14), st.randoms(use_true_random=False), st.sampled_from([{}, EVERYTHING]))
def test_rows_in_are_rows_kept_and_rows_rejected_in_any_order_whatever_the_data(
    rows: Rows, rng: random.Random, params: dict[str, Any]
) -> None:
    records, _ = cleaned(make_records(rows), CleanParams(**params).text_cleaning)
    records = records.drop_nulls("text")
    kept, rejected = applied(records, CleanParams(**params), AGAINST)
    assert sorted([*kept["id"], *rejected["id"]]) == sorted(records["id"])
    CleanRecords.validate(kept.with_columns(fold=pl.lit(None, pl.Int16)), lazy=True)
    Rejected.validate(rejected, lazy=True)
    order = rng.sample(range(records.height), records.height)
    again = applied(records[order], CleanParams(**params), AGAINST)
    assert all(
        table.sort("id").equals(before.sort("id")) for table, before in zip(again, (kept, rejected), strict=True)
    )
    assert applied(kept, CleanParams(**params), AGAINST)[0].equals(kept), "what was kept is kept again"
