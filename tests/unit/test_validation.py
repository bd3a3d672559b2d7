"""Tables held against their contracts: every failing row counted, few of them named, none of them private."""

import json
import random
import re
from functools import partial
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from stages.common.errors import AttuneError
from stages.common.pipeline.validation import check_label_counts, enforce, validation_report
from stages.common.schemas import RawRecords, Rejected, Table, TrainableRecords
from tests.unit.small_records import TASK, make_records


def failing(report: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(check["column"], check["check"]): check["failing"] for check in report["checks"] if check["failing"]}


def offenders(report: dict[str, Any], column: str, check: str) -> Any:
    return {(entry["column"], entry["check"]): entry["offenders"] for entry in report["checks"]}[column, check]


def test_every_way_to_be_untrainable_is_counted() -> None:
    rows = [{"text": None}, {"text": " \t"}, {"text": ""}, {"text": "fine"}, {"text": "br\ufffdken"}]
    rows += [{"text": "fine", "label": None}, {"text": "fine", "label": " "}, {"text": "fine", "id": "row000003"}]
    report = validation_report(TrainableRecords, make_records(rows), name="raw")
    assert not report["passed"]
    assert (report["rows"], report["columns"]["text"]) == (8, {"dtype": "String", "nulls": 1, "distinct": 4})
    assert failing(report) == {
        ("id", "unique"): 2,
        ("text", "not_null"): 1,
        ("text", "not_blank"): 2,
        ("text", "no_lost_characters"): 1,
        ("label", "not_null"): 1,
        ("label", "not_blank"): 1,
    }
    assert offenders(report, "text", "no_lost_characters") == [{"id": "row000004", "value": "br\ufffdken"}]
    assert offenders(report, "text", "not_null") == [{"id": "row000000", "value": None}]


def test_at_most_ten_rows_are_named_and_of_repeated_values_the_most_frequent() -> None:
    records = make_records([{"text": None} for _ in range(500)])
    report = validation_report(TrainableRecords, records.sample(fraction=1.0, shuffle=True, seed=1), name="raw")
    assert failing(report) == {("text", "not_null"): 500}
    assert [row["id"] for row in offenders(report, "text", "not_null")] == [f"row{index:06d}" for index in range(10)]
    repeated = make_records([{"id": name, "text": "t"} for name in "bbbaac"])
    named = offenders(validation_report(RawRecords, repeated, name="raw"), "id", "unique")
    assert named == [{"value": "b", "times": 3}, {"value": "a", "times": 2}]


def test_values_are_cut_masked_and_made_visible() -> None:
    rows = [{"text": "\ufffd mail me@example.org \u202e" + "x" * 10_000}]
    mask = partial(re.sub, "me@example.org", "[EMAIL]")
    report = validation_report(TrainableRecords, make_records(rows), name="raw", mask=mask)
    value = offenders(report, "text", "no_lost_characters")[0]["value"]
    assert value.startswith("\ufffd mail [EMAIL] ⟨U+202E⟩xxx")
    assert len(value) == 80
    assert "me@example" not in json.dumps(report)


TEXT = st.none() | st.sampled_from(["", " ", "a", "\ufffd", "train", "tes\u202et"]) | st.text(max_size=3)
LOOSE_ROW = st.fixed_dictionaries(dict.fromkeys(("id", "text", "label", "split", "source"), TEXT))


def rows_of(counts: dict[str, int]) -> pl.DataFrame:
    return make_records([{"text": "t", "label": label} for label, count in counts.items() for _ in range(count)])


@pytest.mark.parametrize(
    ("kept", "taken", "said"),
    [
        ({}, {"length": 118, "unlabelled": 2}, "there is not one labelled row"),
        ({}, {"length": 118, "unlabelled": 2}, "length took 118 of 120 rows (why), unlabelled 2: widen clean.length"),
        ({"a": 30}, {}, "there is only the label 'a', and a classifier needs two"),
        ({"a": 30}, {"near_duplicate": 7}, "near_duplicate took 7 of 7 rows (why): raise clean.near_duplicates.thres"),
        ({"a": 30}, {"left_out": 7}, "left_out took 7 of 7 rows (why): see where of the source"),
        ({"a": 30, "b": 2}, {}, "too few rows for three splits under the label 'b' (2)"),
        ({"a": 30, "b": 2}, {"language": 9}, "language took 9 of 11 rows (why): add their language to clean.languages"),
        ({"a": 30, "b": 2}, {}, "add rows, or leave the label out"),
    ],
)
def test_too_few_rows_are_an_error_that_names_the_rules_which_took_the_others(
    kept: dict[str, int], taken: dict[str, int], said: str
) -> None:
    reasons = {rule: "why" if rule != "unlabelled" else "zero" for rule in taken}
    out = [Rejected.of(rows_of({"b": count}), "clean", rule, reasons[rule]) for rule, count in taken.items()]
    rejected = pl.concat([Rejected.empty(), *out]).lazy()
    labels = rows_of(kept)["label"]
    with pytest.raises(AttuneError) as raised:
        check_label_counts(labels, TASK.named(labels), "after cleaning", rejected)
    assert said in str(raised.value)
    check_label_counts(rows_of({"a": 30, "b": 2})["label"], {"a": 30, "b": 2}, "after cleaning", rejected, least=2)
    with pytest.raises(AttuneError, match=r"fewer than 9 rows \(clean.min_label_rows\) under the label 'b' \(8\)"):
        check_label_counts(rows_of({"a": 9, "b": 8})["label"], {"a": 9, "b": 8}, "after cleaning", rejected, least=9)
    with pytest.raises(
        AttuneError, match="there are 2 rows, for three splits"
    ):  # of conversations, whose names are none
        check_label_counts(rows_of({"a": 1, "b": 1})["label"], {}, "after cleaning", Rejected.empty().lazy())


@given(st.lists(LOOSE_ROW, max_size=12), st.sampled_from([RawRecords, TrainableRecords]), st.randoms())
def test_the_report_passes_exactly_what_the_gate_lets_through(
    rows: list[dict[str, str | None]], contract: type[Table], rng: random.Random
) -> None:
    records = make_records(rows)
    report = validation_report(contract, records, name="x")
    try:
        contract.validate(records, lazy=True)
        passed = True
    except SchemaErrors:
        passed = False
    assert report["passed"] == passed
    order = list(range(records.height))
    rng.shuffle(order)
    assert validation_report(contract, records[order], name="x") == report
    assert json.loads(json.dumps(report)) == report


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def rejected(**counts: int) -> pl.DataFrame:
    rules = [(rule, index) for rule, count in counts.items() for index in range(count)]
    rows = [{"id": f"{rule} {index}", "text": "secret text"} for rule, index in rules]
    column = pl.Series([rule for rule, _ in rules], dtype=pl.String)
    return Rejected.of(make_records(rows), "clean", "", "because").with_columns(rule=column)


def test_only_above_limits_an_error_names_each_rule_with_share_limit_and_rows() -> None:
    enforce({"length": 0.1, "any": 0.2, "near_duplicate": 0.0}, rejected(length=10, unlabelled=10), 100)
    enforce({"any": 0.0}, rejected(), 0)
    with pytest.raises(AttuneError) as stopped:
        enforce({"length": 0.1, "unlabelled": 0.01, "any": 0.5}, rejected(length=11, unlabelled=3), 100)
    message = str(stopped.value)
    assert "the rule unlabelled rejects 3 of 100 rows" in message
    assert "the rule length rejects 11 of 100 rows (11.0%), more than clean.stop_above allows (10.0%)" in message
    assert "length 0 (tests): because" in message
    assert message.count("because") == 5 + 3
    assert "all rules" not in message
    assert "secret" not in message
    assert "data/clean/rejected.parquet" in message
