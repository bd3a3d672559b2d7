"""Cells of a label column in every spelling: one canonical target each, or a reason why there is none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tasks.base import Refused
from stages.tasks.targets import canonical_number, canonical_set, parse_number, parse_set, renamed_set, set_of

NAME = st.text(
    st.characters(categories=["L", "P", "Zs", "S"], exclude_characters=";|,'\"[]{}\\"), min_size=1, max_size=8
)
NAMES = st.lists(NAME.map(str.strip).filter(bool), max_size=5)


@given(NAMES)
def test_a_set_is_the_same_in_every_spelling(names: list[str]) -> None:
    canonical = canonical_set(names)
    assert parse_set(canonical) == canonical and set_of(canonical) == sorted(set(names))
    spellings = [
        json.dumps(names),
        json.dumps(names, ensure_ascii=False),
        repr(names),
        repr([*reversed(names), *names]),
    ]
    if names:
        spellings += [";".join(names), " | ".join(names), f"[{', '.join(names)}]", repr(set(names))]
        spellings += [str(names).replace(", ", "\n "), json.dumps({"choices": names})]  # numpy's lists have no commas
    assert {parse_set(cell) for cell in spellings} == {canonical}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("a, b", ["a, b"]),
        ("a;;b ", ["a", "b"]),
        ("[2 1]", ["1.0", "2.0"]),
        ("[3, 11]", ["11", "3"]),
        ('["a", null, ""]', ["a"]),
        ("[]", []),
        ("[null]", None),
        (";", None),
        ("{x", ["{x"]),
        ("R&amp;D|A &lt; B", ["A < B", "R&D"]),
        (f"&#{'9' * 5000};|b", ["b", "\ufffd"]),
        ("('a', \"b\")", ["a", "b"]),
        ("()", []),
        ("(none)", ["(none)"]),
        ("list[int]", ["list[int]"]),
        ('["a", "b"', 'what seems to be a list cannot be read, or was cut off: ["a", "b"'),
        ("a]", "what seems to be a list cannot be read"),
        ("['a' 'b' ...\n 'c']", "what seems to be a list cannot be read"),
        ("frozenset({'a'})", "what seems to be a list cannot be read"),
        ('[{"value": {"choices": ["a", "b"]}}]', ["a", "b"]),
        ('[{"result": [{"value": {"choices": ["a"]}}]}]', ["a"]),
        ('[{"result": []}]', []),
        ('[{"result": [{"value": {"choices": ["a"]}}]}, {"result": []}]', "its annotations in Label Studio differ"),
        ('[{"result": [{"value": {"labels": ["PER"]}}]}]', "instead of labels there is a JSON object"),
        ('{"a": 0.9, "b": 0.1}', "instead of labels there seem to be scores per label"),
        ('[[0, 4, "PER"]]', "instead of labels there seem to be labels of parts of the text"),
        ("[0, 1, 0]", "marks of labels without their names: [0, 1, 0]; columns.labels"),
        ("[true, false]", "marks of labels without their names"),
        ("[0. 1. 1.]", "marks of labels without their names"),
    ],
)
def test_what_is_no_set_is_refused_with_what_it_seems_to_be(cell: str, expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(Refused) as raised:
            parse_set(cell)
        assert str(raised.value).startswith(expected) and raised.value.rule == "bad_target"
    else:
        assert parse_set(cell) == (None if expected is None else canonical_set(expected))


def test_names_in_a_set_are_renamed_merged_and_left_out() -> None:
    names = {"a": "x", "b": "x", "nan": None, "c": "c"}
    assert [renamed_set(canonical_set(old), names) for old in (["a", "b", "c"], ["nan", "c"], ["nan"], [])] == [
        '["c","x"]',
        '["c"]',
        None,
        "[]",
    ]


@given(st.floats(-1e100, 1e100))
def test_a_number_reads_back_as_the_same_float_from_three_spellings(value: float) -> None:
    canonical = canonical_number(value)
    assert float(canonical) == value and parse_number(canonical) == canonical and canonical != "-0"
    assert {parse_number(cell) for cell in (repr(value), f" {value:.17e}\n", f"+{value}".replace("+-", "-"))} == {
        canonical
    }
    assert len(canonical) <= 32
    assert "e" not in canonical or not 1e-9 < abs(value) < 1e30


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("3.80", "3.8"),
        (" 4. ", "4"),
        (".5", "0.5"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("3,8", "3,8 is no number: a point parts decimals, and nothing parts thousands"),
        ("1,000.5", "1,000.5 is no number: a point"),
        ("1 000", "1 000 is no number: a point"),
        ("nan", "nan is no number"),
        ("-inf", "-inf is no number"),
        ("1e999", "1e999 is no number"),
        ("\u22121.5", "-1.5"),
        ("-1e300", "-1e300 is too large for a number that is meant"),
        ("\u0663", "\u0663 is no number"),
        ("0x1A", "0x1A is no number"),
        ("four", "four is no number"),
    ],
)
def test_what_is_no_number_is_refused(cell: str, expected: str) -> None:
    if " is " in expected:
        with pytest.raises(Refused) as raised:
            parse_number(cell)
        assert str(raised.value).startswith(expected) and raised.value.rule == "bad_target"
    else:
        assert parse_number(cell) == expected


def test_a_number_outside_of_the_range_is_refused_under_a_rule_of_its_own() -> None:
    assert [parse_number(cell, [0.0, 5.0]) for cell in ("0", "5.0")] == ["0", "5"]
    with pytest.raises(Refused, match=r"^5.01 is outside of ingest.range, 0 to 5$") as raised:
        parse_number("5.01", [0.0, 5.0])
    assert raised.value.rule == "out_of_range"
