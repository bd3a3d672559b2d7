"""The gates: each says yes and no for the right reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.params.model import ChampionGate, Gates
from stages.register import gates

shares = st.floats(0, 1).map(lambda value: round(value, 6))


def metrics(macro_f1: float = 0.8, accuracy: float = 0.8, **baselines: float) -> dict:
    return {
        "macro_f1": macro_f1,
        "accuracy": accuracy,
        "baselines": {name: {"macro_f1": value} for name, value in baselines.items()},
    }


def judged(given_gates: Gates, scores: dict) -> dict[str, bool]:
    return {verdict.gate: verdict.passed for verdict in gates.minimum_and_baselines(given_gates, scores)}


@given(shares, shares)
def test_a_minimum_is_passed_from_its_limit_on(value: float, limit: float) -> None:
    assert judged(Gates(minimum={"accuracy": limit}), metrics(accuracy=value)) == {"minimum accuracy": value >= limit}


@given(shares, shares)
def test_a_baseline_has_to_be_beaten_not_equalled(value: float, limit: float) -> None:
    found = judged(Gates(beat_baselines=["tfidf"]), metrics(macro_f1=value, tfidf=limit))
    assert found == {"beat tfidf": value > limit}


def test_every_gate_set_gets_a_verdict_and_no_other_does() -> None:
    several = Gates(minimum={"accuracy": 0.7, "macro_f1": 0.9}, beat_baselines=["majority", "tfidf"])
    assert judged(several, metrics(majority=0.3, tfidf=0.85)) == {
        "minimum accuracy": True,
        "minimum macro_f1": False,
        "beat majority": True,
        "beat tfidf": False,
    }
    assert judged(Gates(), metrics()) == {}


@pytest.mark.parametrize(
    ("value", "champion", "allowed_drop", "passed"),
    [
        (0.9, 0.8, 0.0, True),
        (0.8, 0.8, 0.0, True),
        (0.799999, 0.8, 0.0, False),
        (0.78, 0.8, 0.02, True),
        (0.779, 0.8, 0.02, False),
        (0.7, 0.8, 0.1, True),  # 0.8 - 0.1 is 0.7000000000000001 to a computer
    ],
)
def test_a_champion_may_be_missed_by_the_allowed_drop_at_most(
    value: float, champion: float, allowed_drop: float, passed: bool
) -> None:
    verdict = gates.against_champion(ChampionGate(allowed_drop=allowed_drop), value, champion, 500)
    assert verdict.passed is passed
    assert ("at least" if passed else "under") in verdict.reason
    assert f"champion {champion:.4f}" in verdict.reason
    assert "500 test rows" in verdict.reason


def test_without_another_champion_there_is_nothing_to_fail() -> None:
    verdict = gates.no_other_champion(ChampionGate())
    assert (verdict.passed, verdict.value, verdict.limit) == (True, None, None)


@pytest.mark.parametrize(
    ("verdict", "what_to_do"),
    [
        (gates.unknown_champion(), "make register"),
        (gates.other_labels(), "register.model_name"),
        (gates.too_few_fresh_rows(12, 400, 30), "gates.champion: null"),
    ],
)
def test_a_champion_that_cannot_be_compared_fails_the_gate_and_says_what_to_do(
    verdict: gates.Verdict, what_to_do: str
) -> None:
    assert verdict.passed is False
    assert what_to_do in verdict.reason


def test_too_few_rows_are_counted_in_the_reason() -> None:
    reason = gates.too_few_fresh_rows(12, 400, 30).reason
    assert "all but 12 of the 400" in reason
    assert "needs 30" in reason


def test_a_verdict_is_json_and_a_line() -> None:
    verdicts = [
        *gates.minimum_and_baselines(Gates(minimum={"macro_f1": 0.9}), metrics()),
        gates.against_champion(ChampionGate(), 0.8, 0.7, 100),
        gates.no_other_champion(ChampionGate()),
    ]
    reports = json.loads(json.dumps([verdict.as_report() for verdict in verdicts], allow_nan=False))
    assert [list(report) for report in reports] == [["gate", "value", "limit", "passed", "reason"]] * 3
    assert verdicts[0].line() == "FAILED  minimum macro_f1: macro_f1 0.8000 is under 0.9000"
    assert verdicts[1].line().startswith("passed  champion: ")
