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
from stages.evaluate.behaviour import judge, plan, summary
from stages.evaluate.perturbations import CHANGES, MEN, WOMEN, casing, names, punctuation, typos
from tests.unit.small_records import judged_rows

LABELS = ["bad", "good"]
NONE = Behaviour(invariance=[])
TEXTS = [
    "Anna saw a film that she loved.",
    "a story told without any hurry",
    "Peter and Paul sing. Really!",
    "这部电影很好看",
    "これはいい映画です。",
    "Who would have thought that?",
    "12345",
    "THE END",
    "",
    "क्या यह फ़िल्म अच्छी है।",
]


def by_word(rows: pl.DataFrame) -> np.ndarray:
    """A model that finds texts with `bad` bad, those with `not` a little less than sure, and others good."""
    of_good = [0.1 if "bad" in text else 0.6 if "not" in text else 0.9 for text in rows["text"]]
    return np.array([[1 - one, one] for one in of_good])


def tried(params: Behaviour, rows: pl.DataFrame, ask: Any = by_word, seed: int = 1) -> tuple[pl.DataFrame, dict]:
    cases = judge(params, plan(params, rows, seed), LABELS, ask)
    return cases, summary(params, cases)


# ── templates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_combination_of_words_is_tried_once() -> None:
    test = MinimumTest(
        name="praise",
        label="good",
        texts=["{it} is {fine}", "I like {it}", "{fine} or {fine}"],
        fill={"it": ["this", "that"], "fine": ["good", "nice", "good"]},
    )
    assert test.cases == [
        *("this is good", "this is nice", "that is good", "that is nice"),
        *("I like this", "I like that"),
        *("good or good", "nice or nice"),
    ]


def test_a_text_and_its_change_are_filled_with_the_same_words() -> None:
    fill = {"it": ["this", "that"], "fine": ["good", "good"], "very": ["very", "so"]}
    test = DirectionTest(
        name="not", label="good", text="{it} is {fine}", changed="{it} is not {very} {fine}", fill=fill
    )
    assert test.cases == [
        ("this is good", "this is not very good"),
        ("this is good", "this is not so good"),
        ("that is good", "that is not very good"),
        ("that is good", "that is not so good"),
    ]


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"texts": ["{it} is {fine}"], "fill": {"it": ["this"]}}, r"\{fine\} has no words in fill"),
        ({"texts": ["{it} is good"], "fill": {"it": []}}, r"\{it\} has no words"),
        ({"texts": ["{a} {b}"], "fill": {"a": list(map(str, range(50))), "b": list(map(str, range(41)))}}, "2,050"),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error_in_the_params(knobs: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        MinimumTest(name="praise", label="good", **knobs)


def test_a_change_that_changes_nothing_is_an_error_in_the_params() -> None:
    with pytest.raises(ValidationError, match="nothing can move"):
        DirectionTest(name="not", label="good", text="it is {x}", changed="it is good", fill={"x": ["fun", "good"]})


@pytest.mark.parametrize("kind", ["minimum", "direction"])
def test_a_label_that_the_model_lacks_is_an_error_that_names_the_test(kind: str) -> None:
    texts = {"minimum": {"texts": ["fine"]}, "direction": {"text": "fine", "changed": "not fine"}}
    params = Behaviour.model_validate({kind: [{"name": "praise", "label": "great", **texts[kind]}]})
    with pytest.raises(AttuneError, match=r"'praise'.*'great'\n.*bad, good"):
        params.check_labels(LABELS)
    params.check_labels(["great"])


# ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    before, after = (regex.findall(r"\p{L}+|\P{L}", one) for one in (text, str(changed)))
    (pair,) = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert (pair[0][0], pair[0][-1]) == (pair[1][0], pair[1][-1])


def test_all_three_slips_occur() -> None:
    slips = {typos("storm", Random(seed)) for seed in range(200)}
    assert {"sorm", "strm", "sttorm", "stoorm", "sotrm", "strom"} <= slips
    assert all(slip and slip[0] == "s" and slip[-1] == "m" for slip in slips)


def test_texts_without_spaces_have_no_typos_and_no_cases_but_full_stops() -> None:
    for text in ("这部电影很好看", "หนังเรื่องนี้ดีมาก"):
        assert typos(text, Random(1)) is None
        assert casing(text, Random(1)) is None
    assert punctuation("这部电影很好看", Random(1)) == "这部电影很好看。"
    assert punctuation("这部电影很好看。", Random(1)) == "这部电影很好看"
    assert typos("这部 movie 很好看", Random(1)) is not None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("It ends.", "It ends"),
        ("It ends", "It ends."),
        ("It ends \n", "It ends."),
        ('"It ends."', None),
        ("It ends!", None),
        ("It ends?", None),
        ("It ends...", None),
        ("It ends…", None),
        ("अच्छी है।", "अच्छी है"),
        ("第215", "第215。"),
        ("หนังดีมาก", None),  # Thai has no full stop
        ("12345", None),
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


def test_names_in_small_letters_are_found_only_where_there_are_no_capitals() -> None:
    changed = names("anna met peter", Random(1))
    assert changed
    assert changed == changed.lower()
    assert changed.split()[1] == "met"
    assert names("Then anna met peter", Random(1)) is None


@pytest.mark.parametrize("text", ["a grace note", "will you mark the rose", "Annabel", "nothing here", "Maryland"])
def test_words_that_only_look_like_names_stay(text: str) -> None:
    assert names(text, Random(1)) is None


# ── cases and verdicts ──────────────────────────────────────────────────────────────────────────────────────────────


def test_an_invariance_passes_where_the_prediction_stays() -> None:
    def hates_stops(rows: pl.DataFrame) -> np.ndarray:
        return np.array([[0.8, 0.2] if text.endswith(".") else [0.3, 0.7] for text in rows["text"]])

    params = Behaviour(invariance=["punctuation"])
    cases, found = tried(params, judged_rows(["one ends.", "two ends"]), hates_stops)
    assert found == {"punctuation": {"kind": "invariance", "cases": 2, "passed": 1, "pass_rate": 0.5}}
    got = cases.sort("before").select("before", "text", "expected", "prediction", "probability_before", "probability")
    assert got.rows() == [
        ("one ends.", "one ends", "good", "good", 0.9, 0.7),
        ("two ends", "two ends.", "good", "bad", 0.9, 0.2),
    ]


def test_a_minimum_test_passes_where_the_label_is_predicted() -> None:
    test = MinimumTest(name="praise", label="good", texts=["fine", "bad"])
    cases, found = tried(Behaviour(invariance=[], minimum=[test]), judged_rows([]))
    assert found == {"praise": {"kind": "minimum", "cases": 2, "passed": 1, "pass_rate": 0.5}}
    assert cases.select("text", "before", "probability_before", "passed").rows() == [
        ("fine", None, None, True),
        ("bad", None, None, False),
    ]


@pytest.mark.parametrize(
    ("moves", "margin", "text", "changed", "passed"),
    [
        ("down", 0.0, "fine", "not fine", True),
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
    cases, found = tried(Behaviour(invariance=[], direction=[test]), judged_rows([]))
    assert found["not"]["passed"] == passed
    assert cases["probability_before"].to_list() == [0.1 if text == "bad" else 0.9]


def test_a_test_without_a_case_has_no_pass_rate() -> None:
    cases, found = tried(Behaviour(invariance=["names", "casing"]), judged_rows(["这部电影很好看"]))
    assert cases.is_empty()
    assert cases.schema == BehaviourCases.empty().schema
    assert found["names"] == {"kind": "invariance", "cases": 0, "passed": 0, "pass_rate": None}


def test_rows_that_cannot_be_changed_make_room_for_others() -> None:
    texts = ["!!!"] * 50 + ["it ends."] * 10
    assert (
        plan(Behaviour(rows=7, invariance=["punctuation"]), judged_rows(texts), 1)["text"].to_list() == ["it ends"] * 7
    )


def test_cases_do_not_depend_on_the_order_of_the_rows_but_on_the_seed() -> None:
    texts = [f"The story number {number} was told slowly by Anna." for number in range(40)]
    rows, params = judged_rows(texts), Behaviour(rows=10)
    first, turned, other = plan(params, rows, 1), plan(params, rows.reverse(), 1), plan(params, rows, 2)
    assert first.equals(turned)
    assert not first.equals(other)
    assert first["test"].value_counts()["count"].to_list() == [10] * 4


def test_a_row_less_leaves_the_cases_of_the_others_as_they_were() -> None:
    rows = judged_rows([f"The story number {number}" for number in range(40)])
    params = Behaviour(rows=100, invariance=["typos", "casing"])
    all_but_one = plan(params, rows, 1).filter(pl.col("before") != rows["text"][5])
    assert plan(params, rows.filter(pl.col("id") != "row5"), 1).equals(all_but_one)


def test_of_a_pair_the_first_text_is_changed_and_both_are_shown() -> None:
    asked: list[pl.DataFrame] = []

    def ask(rows: pl.DataFrame) -> np.ndarray:
        asked.append(rows)
        return by_word(rows)

    minimum = MinimumTest(name="praise", label="good", texts=["fine"])
    params = Behaviour(invariance=["punctuation"], minimum=[minimum])
    cases, _ = tried(params, judged_rows(["it ends."], ["why?"]), ask)
    assert asked[0].rows() == [("it ends", "why?"), ("fine", None)]
    assert cases.select("text", "before").rows() == [("it ends\nwhy?", "it ends.\nwhy?"), ("fine", None)]


def test_the_model_is_asked_once_and_never_about_nothing() -> None:
    calls = []

    def ask(rows: pl.DataFrame) -> np.ndarray:
        calls.append(rows.height)
        return by_word(rows)

    tried(NONE, judged_rows(TEXTS), ask)
    assert calls == []
    direction = [DirectionTest(name="m", label="good", text="fine", changed="not fine")]
    tried(Behaviour(invariance=["casing"], direction=direction), judged_rows(["The End"]), ask)
    assert calls == [3]  # the changed row, the changed text, and that text before
