"""The gates: each says yes and no for the right reason, at its limit as well."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.params.register import Gates, SliceGate
from stages.register.gates import Verdict, judge_reports
from tests.projects import params_of

PARAMS = params_of()
shares = st.floats(0, 1).map(lambda value: round(value, 6))
NO_SLICES = pl.DataFrame(schema={"slice": pl.String, "rows": pl.Int64, "accuracy": pl.Float64, "macro_f1": pl.Float64})


def metrics(score: float = 0.8, tfidf: float = 0.7, low: float = 0.05, **more: Any) -> dict[str, Any]:
    """A report: scores, those of the baseline, and the lower end of what is gained over it."""
    gain = {"macro_f1_gain": 0.1, "macro_f1_gain_low": low, "macro_f1_gain_high": 0.2}
    baseline = {"macro_f1": tfidf, **gain, "fixed": 40, "broken": 12, "mcnemar_p": 0.00012}
    return {"macro_f1": score, "accuracy": score, "baselines": {"tfidf": baseline}, **more}


def judged(gates: Gates, scores: dict[str, Any], slices: pl.DataFrame = NO_SLICES) -> list[Verdict]:
    section = PARAMS.register_.model_copy(update={"gates": gates})
    return judge_reports(PARAMS.model_copy(update={"register_": section}), scores, slices, scores.get("export", {}))


def passes(gates: Gates, scores: dict[str, Any]) -> dict[str, bool]:
    return {verdict.gate: verdict.passed for verdict in judged(gates, scores)}


def test_what_tuning_costs_is_judged_by_the_worse_end_and_needs_texts() -> None:
    kept = {"texts": 30, "base_bits": 1.2, "bits": 1.21, "loss": 0.01, "loss_low": 0.0, "loss_high": 0.02}
    for limit, passed in ((0.02, True), (0.019, False), (0.0, False)):
        (verdict,) = judged(Gates(retention=limit), metrics(retention=kept))
        assert (verdict.gate, verdict.value, verdict.passed) == ("retention", 0.02, passed)
    for few in ({}, {"retention": {**kept, "texts": 29}}):
        (verdict,) = judged(Gates(retention=1.0), metrics(**few))
        assert not verdict.passed and "ingest.retention_texts" in verdict.reason
    gap = {"export": {"merge_gap": 0.001}}
    assert passes(Gates(merge_gap=0.001), metrics(**gap)) == {"merge_gap": True}
    assert passes(Gates(merge_gap=0.0005), metrics(**gap)) == {"merge_gap": False}
    assert passes(Gates(merge_gap=0.0), metrics()) == {}, "nothing was merged"


@given(shares, shares)
def test_a_minimum_may_be_equalled_a_baseline_has_to_be_beaten(value: float, limit: float) -> None:
    gates = Gates(minimum={"accuracy": limit}, beat_baselines=["tfidf"])
    passed = passes(gates, metrics(value, tfidf=limit))
    assert passed == {"minimum accuracy": value >= limit, "beat tfidf": value > limit}
    assert passes(Gates(), metrics()) == {}


@pytest.mark.parametrize(("low", "passed"), [(0.000001, True), (0.0, False), (-0.01, False)])
def test_a_gain_that_could_be_chance_beats_nothing_where_significance_is_asked_for(low: float, passed: bool) -> None:
    scores = metrics(low=low)
    (verdict,) = judged(Gates(beat_baselines=["tfidf"], beat_significantly=True), scores)
    assert (verdict.passed, verdict.value, verdict.limit) == (passed, low, 0.0)
    assert f"95% interval [{low:+.4f}, +0.2000]; 40 rows fixed, 12 broken, McNemar's p 0.00012" in verdict.reason
    assert passes(Gates(beat_baselines=["tfidf"]), scores) == {"beat tfidf": True}, "its middle is above"


@pytest.mark.parametrize(
    ("metric", "minimum", "passed"), [("accuracy", 0.7, True), ("accuracy", 0.700001, False), ("macro_f1", 0.3, False)]
)
def test_the_worst_slice_decides_and_is_named_with_its_rows(metric: Any, minimum: float, passed: bool) -> None:
    rows = [("source: a", 90, 0.9, 0.9), ("source: b", 21, 0.7, 0.2), ("source: c", 40, 0.8, 0.8)]
    table = pl.DataFrame(rows, schema=NO_SLICES.schema, orient="row")
    (verdict,) = judged(Gates(slices=SliceGate(metric=metric, minimum=minimum)), metrics(), table)
    assert (verdict.passed, verdict.limit) == (passed, minimum)
    assert verdict.value == {"accuracy": 0.7, "macro_f1": 0.2}[metric]
    assert "the worst of 3 slices, 'source: b' with 21 rows" in verdict.reason


@given(shares, shares)
def test_a_calibration_error_has_an_upper_limit_and_a_pass_rate_a_lower_one(value: float, limit: float) -> None:
    behaviour = {"typos": {"kind": "invariance", "cases": 8, "passed": 5, "pass_rate": value}}
    scores = metrics(calibration={"ece": value}, behaviour=behaviour)
    ece, typos = judged(Gates(max_ece=limit, behaviour={"typos": limit}), scores)
    assert (ece.gate, ece.passed, ece.value, ece.limit) == ("max_ece", value <= limit, value, limit)
    assert (typos.gate, typos.passed, typos.value) == ("behaviour typos", value >= limit, value)
    assert "(5 of 8 cases passed)" in typos.reason


def test_a_test_of_behaviour_that_applies_to_no_row_is_passed_and_says_so() -> None:
    behaviour = {"names": {"kind": "invariance", "cases": 0, "passed": 0, "pass_rate": None}}
    (verdict,) = judged(Gates(behaviour={"names": 1.0}), metrics(behaviour=behaviour))
    assert (verdict.passed, verdict.value, verdict.limit) == (True, None, 1.0)
    assert "nothing to judge" in verdict.reason


@pytest.mark.parametrize(("extra", "passed"), [(-1, True), (0, True), (1, False)])
def test_a_model_may_be_as_large_as_its_limit_to_the_byte(extra: int, passed: bool) -> None:
    (verdict,) = judged(Gates(max_size_mb=2.5), metrics(model={"bytes": 5 * 2**19 + extra}))
    assert (verdict.gate, verdict.passed, verdict.limit) == ("max_size_mb", passed, 2.5)


@pytest.mark.parametrize("significantly", [True, False])
def test_what_is_no_number_fails_its_gate(significantly: bool) -> None:
    nan = float("nan")
    scores = metrics(nan, nan, nan, calibration={"ece": nan})
    gates = Gates(minimum={"accuracy": 0.5}, beat_baselines=["tfidf"], beat_significantly=significantly, max_ece=0.5)
    assert list(passes(gates, scores).values()) == [False] * 3


def test_without_a_slice_of_enough_rows_the_gate_says_how_to_have_one() -> None:
    (verdict,) = judged(Gates(slices=SliceGate(minimum=0.1)), metrics())
    assert not verdict.passed and "evaluate.slices.min_rows" in verdict.reason
