"""Behavioural tests: templates, changes that leave what a text says as it was, and what counts as passed."""

import string
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
import regex
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.common.errors import AttuneError
from stages.common.params.evaluate import Behaviour, DirectionTest, MinimumTest
from stages.common.schemas import BehaviourCases
from stages.evaluate.behaviour import CHANGES, MEN, WOMEN, casing, judge, names, plan, punctuation, summary, typos
from stages.tasks.text_classification import TASK, TextClassification
from tests.unit.small_decisions import label_decision
from tests.unit.small_records import judged_rows

LABELS = ["bad", "good"]
TEXTS = [
    "Anna saw a film that she loved.",
    "Peter and Paul sing. Really!",
    "这部电影很好看",
    "これはいい映画です。",
    "12345",
    "THE END",
    "",
    "क्या यह फ़िल्म अच्छी है।",
]


def by_word(rows: pl.DataFrame) -> np.ndarray:
    """A model that finds texts with `bad` bad, those with `not` a little less than certain, and others good."""
    good = [0.1 if "bad" in text else 0.6 if "not" in text else 0.9 for text in rows["text"]]
    return np.array([[1 - probability, probability] for probability in good])


def tried(params: Behaviour, rows: pl.DataFrame, ask: Any = by_word) -> tuple[pl.DataFrame, dict]:
    cases = judge(params, plan(params, rows, 1), TASK, label_decision(LABELS), ask)
    return cases, summary(params, cases)


def test_every_combination_of_words_is_tried_once() -> None:
    fill = {"it": ["this", "that"], "fine": ["good", "nice", "good"]}
    test = MinimumTest(
        name="praise", label="good", texts=["{it} is {fine}", "I like {it}", "{fine} or {fine}"], fill=fill
    )
    assert test.cases == [
        *("this is good", "this is nice", "that is good", "that is nice"),
        *("I like this", "I like that", "good or good", "nice or nice"),
    ]


def test_a_text_and_its_change_are_filled_with_the_same_words() -> None:
    fill = {"it": ["this", "that"], "fine": ["good", "good"], "very": ["very", "so"]}
    test = DirectionTest(
        name="not", label="good", text="{it} is {fine}", changed="{it} is not {very} {fine}", fill=fill
    )
    expected = [(f"{it} is good", f"{it} is not {very} good") for it in ("this", "that") for very in ("very", "so")]
    assert test.cases == expected
    with pytest.raises(ValidationError, match="nothing can move"):
        DirectionTest(name="not", label="good", text="it is {x}", changed="it is good", fill={"x": ["fun", "good"]})


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"texts": ["{it} is {fine}"], "fill": {"it": ["this"]}}, r"\{fine\} has no words in fill"),
        ({"texts": ["{it} is good"], "fill": {"it": []}}, r"\{it\} has no words"),
        ({"texts": ["{a} {b}"], "fill": {"a": list(map(str, range(50))), "b": list(map(str, range(41)))}}, "2,050"),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error_in_the_params(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MinimumTest(name="praise", label="good", **knobs)


@pytest.mark.parametrize("kind", ["minimum", "direction"])
def test_a_label_that_the_model_lacks_is_an_error_that_names_the_test(kind: str) -> None:
    texts = {"minimum": {"texts": ["fine"]}, "direction": {"text": "fine", "changed": "not fine"}}
    params = Behaviour.model_validate({kind: [{"name": "praise", "label": "great", **texts[kind]}]})
    with pytest.raises(AttuneError, match=r"'praise'.*'great'\n.*bad, good"):
        params.check_labels(LABELS)
    params.check_labels(["great"])


@pytest.mark.parametrize("change", CHANGES.values())
@given(text=st.one_of(st.text(max_size=40), st.sampled_from(TEXTS)), seed=st.integers(0, 100))
def test_a_change_changes_and_is_the_same_again(change: Any, text: str, seed: int) -> None:
    changed = change(text, Random(seed))
    assert changed != text
    assert changed == change(text, Random(seed))


@given(st.text(alphabet=string.ascii_letters + " .,'", max_size=60), st.integers(0, 100))
def test_a_typo_is_one_slip_inside_of_one_long_word(text: str, seed: int) -> None:
    changed = typos(text, Random(seed))
    words = regex.findall(r"\p{L}{4,}", text)
    assert (changed is not None) == bool(words)
    assume(changed is not None)
    assert abs(len(str(changed)) - len(text)) <= 1
    before, after = (regex.findall(r"\p{L}+|\P{L}", part) for part in (text, str(changed)))
    (pair,) = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert (pair[0][0], pair[0][-1]) == (pair[1][0], pair[1][-1])


@pytest.mark.parametrize("text", ["这部电影很好看", "หนังเรื่องนี้ดีมาก"])
def test_texts_of_scripts_without_spaces_have_no_typos_and_no_cases(text: str) -> None:
    assert typos(text, Random(1)) is None
    assert casing(text, Random(1)) is None
    assert typos(f"{text} movie", Random(1)) is not None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("It ends.", "It ends"),
        ("It ends", "It ends."),
        ("It ends \n", "It ends."),
        ("It ends...", None),
        ("अच्छी है।", "अच्छी है"),
        ("很好看", "很好看。"),
        ("很好看。", "很好看"),
        ("第215", "第215。"),
        ("หนังดีมาก", None),  # Thai has no full stop
        ("", None),
    ],
)
def test_only_a_full_stop_is_taken_or_put(before: str, after: str | None) -> None:
    assert punctuation(before, Random(1)) == after


def test_casing_goes_both_ways_and_takes_the_other_where_one_changes_nothing() -> None:
    assert {casing("The End", Random(seed)) for seed in range(20)} == {"the end", "THE END"}
    assert {casing("the end", Random(seed)) for seed in range(20)} == {"THE END"}
    assert {casing("THE END", Random(seed)) for seed in range(20)} == {"the end"}


@given(st.integers(0, 1000))
def test_one_name_stays_one_name_and_a_woman_a_woman(seed: int) -> None:
    changed = names("Anna met Peter. Anna's friend Maria knew Peter too.", Random(seed))
    assert changed
    anna, peter, again, maria, last = regex.findall(r"\b[A-Z][a-z]+\b", changed)
    assert (anna, peter) == (again, last)
    assert anna != maria
    assert {anna, maria} <= set(WOMEN) - {"Anna", "Maria"}
    assert peter in set(MEN) - {"Peter"}


@pytest.mark.parametrize("text", ["Then anna met peter", "a grace note", "will you mark", "Annabel", "Maryland"])
def test_words_that_only_look_like_names_stay(text: str) -> None:
    assert names(text, Random(1)) is None


def test_an_invariance_passes_where_the_prediction_stays() -> None:
    def hates_stops(rows: pl.DataFrame) -> np.ndarray:
        return np.array([[0.8, 0.2] if text.endswith(".") else [0.3, 0.7] for text in rows["text"]])

    cases, report = tried(Behaviour(invariance=["punctuation"]), judged_rows(["one ends.", "two ends"]), hates_stops)
    assert report == {"punctuation": {"kind": "invariance", "cases": 2, "passed": 1, "pass_rate": 0.5}}
    columns = ["before", "text", "expected", "prediction", "score_before", "score"]
    assert cases.sort("before").select(columns).rows() == [
        ("one ends.", "one ends", "good", "good", 0.9, 0.7),
        ("two ends", "two ends.", "good", "bad", 0.9, 0.2),
    ]


def test_a_task_is_asked_about_kinds_of_which_there_are_cases() -> None:
    class Strict(TextClassification):
        def meets(self, kind: str, expected: pl.Series, predictions: pl.DataFrame) -> np.ndarray:
            assert predictions.height
            return super().meets(kind, expected, predictions)

    test = MinimumTest(name="praise", label="good", texts=["fine"])
    for params, passed in ((Behaviour(invariance=["punctuation"]), 1), (Behaviour(invariance=[], minimum=[test]), 1)):
        planned = plan(params, judged_rows(["it ends."]), 1)
        assert judge(params, planned, Strict(), label_decision(LABELS), by_word)["passed"].sum() == passed


def test_a_minimum_test_passes_where_the_label_is_predicted() -> None:
    test = MinimumTest(name="praise", label="good", texts=["fine", "bad"])
    cases, report = tried(Behaviour(invariance=[], minimum=[test]), judged_rows([]))
    assert report == {"praise": {"kind": "minimum", "cases": 2, "passed": 1, "pass_rate": 0.5}}
    rows = cases.select("text", "before", "score_before", "passed").rows()
    assert rows == [("fine", None, None, True), ("bad", None, None, False)]


@pytest.mark.parametrize(
    ("moves", "margin", "text", "changed", "passed"),
    [
        ("down", 0.29, "fine", "not fine", True),
        ("down", 0.31, "fine", "not fine", False),
        ("up", 0.0, "fine", "not fine", False),
        ("up", 0.5, "bad", "fine", True),
        ("down", 0.0, "fine", "good", False),  # it did not move
    ],
)
def test_a_direction_test_passes_where_the_probability_moves_far_enough(
    moves: Any, margin: float, text: str, changed: str, passed: bool
) -> None:
    test = DirectionTest(name="not", label="good", text=text, changed=changed, moves=moves, margin=margin)
    cases, report = tried(Behaviour(invariance=[], direction=[test]), judged_rows([]))
    assert report["not"]["passed"] == passed
    assert cases["score_before"].to_list() == [0.1 if text == "bad" else 0.9]


def test_a_test_without_a_case_has_no_pass_rate() -> None:
    cases, report = tried(Behaviour(invariance=["names", "casing"]), judged_rows(["这部电影很好看"]))
    assert cases.is_empty()
    assert cases.schema == BehaviourCases.empty().schema
    assert report["names"] == {"kind": "invariance", "cases": 0, "passed": 0, "pass_rate": None}


def test_cases_depend_on_the_seed_and_not_on_order_or_number_of_the_rows() -> None:
    rows = judged_rows([f"The story number {number} was told slowly by Anna." for number in range(40)])
    first, reversed_rows, other = (
        plan(Behaviour(rows=10), table, seed) for table, seed in ((rows, 1), (rows.reverse(), 1), (rows, 2))
    )
    assert first.equals(reversed_rows)
    assert not first.equals(other)
    assert first["test"].value_counts()["count"].to_list() == [10] * 4
    all_rows = Behaviour(rows=100, invariance=["typos", "casing"])
    without_one = plan(all_rows, rows, 1).filter(pl.col("before") != rows["text"][5])
    assert plan(all_rows, rows.filter(pl.col("id") != "row5"), 1).equals(without_one)
    few = judged_rows(["!!!"] * 50 + ["it ends."] * 10)  # rows that cannot be changed make room for others
    assert plan(Behaviour(rows=7, invariance=["punctuation"]), few, 1)["text"].to_list() == ["it ends"] * 7


def test_the_model_is_asked_once_about_both_texts_of_a_pair_and_never_about_nothing() -> None:
    asked: list[pl.DataFrame] = []

    def ask(rows: pl.DataFrame) -> np.ndarray:
        asked.append(rows)
        return by_word(rows)

    tried(Behaviour(invariance=[]), judged_rows(TEXTS), ask)
    assert asked == []
    direction = [DirectionTest(name="m", label="good", text="fine", changed="not fine")]
    params = Behaviour(invariance=["punctuation"], direction=direction)
    cases, _ = tried(params, judged_rows(["it ends."], ["why?"]), ask)
    (table,) = asked
    assert table.rows() == [("it ends", "why?"), ("not fine", None), ("fine", None)]
    assert cases.select("text", "before").rows() == [("it ends\nwhy?", "it ends.\nwhy?"), ("not fine", "fine")]
