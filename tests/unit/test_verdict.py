"""The verdict says in plain sentences what a review comes to, and each risk in one line."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from small_review import (
    MODEL,
    make_changes,
    make_effect,
    make_gain,
    make_gates,
    make_rebuild,
    make_review,
    make_revision,
)

from flows.reviewing.findings import (
    ParamChange,
    Review,
    VersionChange,
)
from flows.reviewing.verdict import verdict_of
from tests.unit.small_revisions import PARAMS

CALM = make_effect()
BARE = make_changes(params=(), files=(), versions=(), data=())


def risks(**found: Any) -> list[str]:
    """The risks of a review that has none but for these findings."""
    return [line.text for line in verdict_of(make_review(**{"effect": CALM, "changes": BARE, **found})).risks]


def test_a_review_without_risks_has_none() -> None:
    assert risks() == []


@pytest.mark.parametrize(
    ("rebuild", "tone", "sentence"),
    [
        ("identical", "good", "Rebuilt from nothing: all 8 outs have the bytes that dvc.lock says"),
        ("equal", "good", "Rebuilt from nothing, equal within the tolerance: 7 of 8 outs have the same bytes"),
        (
            "different",
            "bad",
            f"Not reproduced: `finetune` is the first stage that differs: {MODEL}: 1 of 101 tensors differ, by up to "
            "0.0039 (stages) (1 of 8 outs differ)",
        ),
        ("failed", "bad", "Not rebuilt: `finetune` failed: ended with status 1"),
        ("left out", "warn", "Not rebuilt: that was left out, as asked"),
        (
            "unrecorded",
            "warn",
            "Nothing to compare a rebuild with: there is no dvc.lock that can be read",
        ),
    ],
)
def test_each_outcome_of_a_rebuild_has_its_sentence(rebuild: str, tone: str, sentence: str) -> None:
    assert verdict_of(make_review(rebuild=make_rebuild(rebuild))).headline[0] == (tone, sentence)


def test_a_record_of_other_code_names_the_stages_and_whose_results_are_shown() -> None:
    head = make_revision(stale={"clean": "stages/clean changed"}, results="rebuilt")
    found = verdict_of(make_review(head=head, rebuild=make_rebuild("unrecorded")))
    assert found.headline[0].text == (
        "Nothing to compare a rebuild with: dvc.lock is not of this code, params and data (`clean`); "
        "the results below are those of the run from nothing"
    )
    assert found.risks[0].text.endswith("`clean` (`stages/clean changed`); `make run`, then commit")


@pytest.mark.parametrize(
    ("gates", "tone", "sentence"),
    [
        (make_gates(), "good", "Gates: all 3 passed"),
        (
            make_gates("max_ece", "champion"),
            "bad",
            "Gates: 2 of 3 failed: `max_ece`, `champion`",
        ),
        ((), "warn", "Gates: not judged, no registration report names any"),
    ],
)
def test_gates_that_failed_are_named_with_value_and_limit(gates: Any, tone: str, sentence: str) -> None:
    assert verdict_of(make_review(gates=gates)).headline[1] == (tone, sentence)


ON = "with 95 % confidence on the 1,281 test rows that both have; 31 rows improved, 18 regressed"


@pytest.mark.parametrize(
    ("trend", "tone", "sentence"),
    [
        ("better", "good", f"Better: macro-F1 +0.0123 [+0.0031, +0.0215] {ON}"),
        ("worse", "bad", f"Worse: macro-F1 -0.0123 [-0.0215, -0.0031] {ON}"),
        ("unclear", "warn", f"No clear difference: macro-F1 +0.0020 [-0.0072, +0.0112] {ON}"),
        ("same", "good", "Same: every prediction is the same on the 1,281 test rows that both have"),
    ],
)
def test_each_trend_has_its_sentence(trend: Any, tone: str, sentence: str) -> None:
    assert verdict_of(make_review(effect=make_effect(trend))).headline[2] == (tone, sentence)


def test_the_score_that_decides_and_its_confidence_are_those_of_the_params() -> None:
    data = copy.deepcopy(PARAMS)
    data["evaluate"]["bootstrap"]["confidence"] = 0.9
    data["register"]["gates"] = {"champion": {"metric": "accuracy"}}
    scores = (make_gain("macro_f1", trend="better"), make_gain("accuracy", -0.02, 0.01, "worse"))
    review = make_review(head=make_revision(data=data), effect=make_effect(scores=scores))
    assert verdict_of(review).headline[2].text.startswith("Worse: accuracy -0.0200 [-0.0300, -0.0100] with 90 %")


@pytest.mark.parametrize(
    ("review", "sentence"),
    [
        (make_review(base=None, changes=None, effect=None), "Not compared: `origin/main` has no results"),
        (
            make_review(effect=None, base=None, failure="its stage ingest failed"),
            "Not compared: its stage ingest failed",
        ),
        (make_review(effect=None), "Not compared: one side has no predictions"),
        (
            make_review(effect=make_effect(rows=0, scores=(), missing=("no test row is in both",))),
            "Not compared: no test row is in both",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_and_never_called_good(review: Review, sentence: str) -> None:
    assert verdict_of(review).headline[2] == ("warn", sentence)


def test_a_part_that_got_worse_under_a_whole_that_did_not_is_named() -> None:
    effect = replace(CALM, slices=(make_gain("long texts", -0.05, 0.02, "worse", 300),))
    assert risks(effect=effect) == ["Worse in part, though not as a whole: `long texts` -0.0500 [-0.0700, -0.0300]"]
    assert risks(effect=replace(effect, scores=make_effect("worse").scores)) == []


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"behind": 3}, "The head lacks 3 commits of `origin/main`, no part of this review"),
        ({"uncommitted": ("a.py",)}, "Not committed, so no part of this review: `a.py`"),
        ({"notes": ("something else",)}, "something else"),
        (
            {"effect": replace(CALM, only_base=12, only_head=3, relabelled=5)},
            "The test rows differ: 12 only in the base, 3 only in the head, 5 relabelled; scores are on those of both",
        ),
        (
            {"changes": replace(BARE, params=(ParamChange("clean.split.test", "0.1", "0.2"),))},
            "What decides on the splits changed: `clean.split.test` `0.1` → `0.2`",
        ),
        (
            {"changes": replace(BARE, params=(ParamChange("register.gates.max_ece", "0.05", None),))},
            "The gates themselves changed: `register.gates.max_ece` `0.05` → `None`",
        ),
        (
            {"changes": replace(BARE, versions=(VersionChange("torch", "2.12.0", "2.13.0", "2.12.0"),))},
            "constraints.txt changed, and nothing ran with what it pins now: `torch` `2.13.0`, here `2.12.0`",
        ),
        (
            {"rebuild": make_rebuild("equal", environment=(("threads", "2", "8"),))},
            "Rebuilt in another environment than it was recorded in: `threads` `2` → `8`",
        ),
        (
            {"base": make_revision("origin/main", stale={"clean": ""})},
            "The base's dvc.lock is not of its own code, params and data: `clean`",
        ),
    ],
)
def test_each_risk_has_its_line(found: dict[str, Any], sentence: str) -> None:
    assert sentence in risks(**found)


def test_bad_risks_come_first_and_a_foreign_name_cannot_end_the_code_that_it_stands_in() -> None:
    found = verdict_of(make_review(asked_base="a`b", behind=1, head=make_revision(stale={"clean": "x"}))).risks
    assert [line.tone for line in found] == sorted(line.tone for line in found)
    assert {line.tone for line in found} == {"bad", "warn"}
    assert any("`a'b`" in line.text for line in found)
