"""The verdict says in plain sentences what a review comes to, and each risk in one line."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from flows.reviewing.findings import ParamChange
from flows.reviewing.verdict import verdict_of
from tests.unit import small_review as small
from tests.unit.small_review import make_changes, make_effect, make_rebuild, make_review, make_revision
from tests.unit.small_revisions import PARAMS

BARE = make_changes(params=(), files=(), versions=(), data=())
STALE = make_revision(stale={"clean": "stages/clean changed"}, results="rebuilt")
EMPTY = make_effect(rows=0, scores=(), missing=("no test row is in both",))


def risks(**findings: Any) -> list[str]:
    """The risks of a review that has none but for these findings."""
    return [line.text for line in verdict_of(make_review(**{"changes": BARE, **findings})).risks]


@pytest.mark.parametrize(
    ("findings", "tone", "words"),
    [
        ({"rebuild": make_rebuild("identical")}, "good", "Rebuilt from nothing: all 8 outs have the bytes that dvc.lo"),
        ({"rebuild": make_rebuild("equal")}, "good", "Rebuilt from nothing, equal within the tolerance: 7 of 8 outs"),
        ({"rebuild": make_rebuild("different")}, "bad", "Not reproduced: `finetune` is the first stage that differs"),
        ({"rebuild": make_rebuild("failed")}, "bad", "Not rebuilt: `finetune` failed: ended with status 1"),
        ({"rebuild": make_rebuild("left out")}, "warn", "Not rebuilt: that was left out, as asked"),
        ({"rebuild": make_rebuild("unrecorded")}, "warn", "Nothing to compare a rebuild with: there is no dvc.lock"),
        (
            {"rebuild": make_rebuild("unrecorded"), "head": STALE},
            "warn",
            "Nothing to compare a rebuild with: dvc.lock is not of this code, params and data (`clean`); the results",
        ),
        ({"gates": small.make_gates()}, "good", "Gates: all 3 passed"),
        ({"gates": small.make_gates("max_ece", "champion")}, "bad", "Gates: 2 of 3 failed: `max_ece`, `champion`"),
        ({"gates": ()}, "warn", "Gates: not judged"),
        ({"effect": make_effect("better")}, "good", "Better: macro-F1 +0.0123 [+0.0031, +0.0215] with 95 %"),
        ({"effect": make_effect("unclear")}, "warn", "No clear difference: macro-F1 +0.0020 [-0.0072, +0.0112]"),
        ({"effect": make_effect("same")}, "good", "Same: every prediction is the same on the 1,281 test rows"),
        ({"base": None, "effect": None, "failure": "ingest failed"}, "warn", "Not compared: ingest failed"),
        ({"effect": None}, "warn", "Not compared: one side has no predictions"),
        ({"effect": EMPTY}, "warn", "Not compared: no test row is in both"),
    ],
)
def test_each_outcome_has_its_sentence(findings: dict[str, Any], tone: str, words: str) -> None:
    headline = verdict_of(make_review(**findings)).headline
    assert any(line.tone == tone and line.text.startswith(words) for line in headline), headline


def test_the_score_that_decides_and_its_confidence_are_those_of_the_params() -> None:
    data = copy.deepcopy(PARAMS)
    data["evaluate"]["bootstrap"]["confidence"] = 0.9
    data["register"]["gates"] = {"champion": {"metric": "accuracy"}}
    scores = (small.make_gain("macro_f1", trend="better"), small.make_gain("accuracy", -0.02, 0.01, "worse"))
    review = make_review(head=make_revision(data=data), effect=make_effect(scores=scores))
    assert verdict_of(review).headline[2].text.startswith("Worse: accuracy -0.0200 [-0.0300, -0.0100] with 90 %")


def test_a_part_that_got_worse_under_a_whole_that_did_not_is_named() -> None:
    assert risks() == []
    effect = make_effect(slices=(small.make_gain("long texts", -0.05, 0.02, "worse", 300),))
    assert risks(effect=effect) == ["Worse in part, though not as a whole: `long texts` -0.0500 [-0.0700, -0.0300]"]
    assert risks(effect=replace(effect, scores=make_effect("worse").scores)) == []


SPLIT = ParamChange("clean.split.test", "0.1", "0.2")
GATE = ParamChange("register.gates.max_ece", "0.05", None)
MACHINE = (("threads", "2", "8"),)


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ({"behind": 3}, "The head lacks 3 commits of `origin/main`"),
        ({"uncommitted": ("a.py",)}, "Not committed, so no part of this review: `a.py`"),
        ({"effect": make_effect(only_base=12)}, "The test rows differ: 12 only in the base, 0 only in the head"),
        ({"changes": replace(BARE, params=(SPLIT,))}, "What a model is judged by changed: `clean.split.test` `0.1` →"),
        (
            {"changes": replace(BARE, params=(GATE,))},
            "What a model is judged by changed: `register.gates.max_ece` `0.05` →",
        ),
        ({"rebuild": make_rebuild("equal", environment=MACHINE)}, "Rebuilt in another environment than it was"),
        ({"head": STALE}, "dvc.lock is not of this code, params and data: `clean` (`stages/clean changed`)"),
        ({"base": make_revision(stale={"clean": ""})}, "The base's dvc.lock is not of its own code, params and data"),
    ],
)
def test_each_risk_has_its_line(findings: dict[str, Any], words: str) -> None:
    assert [line for line in risks(**findings) if line.startswith(words)]


def test_bad_risks_come_first_and_a_foreign_name_cannot_end_the_code_that_it_stands_in() -> None:
    findings = verdict_of(make_review(asked_base="a`b", behind=1, head=STALE)).risks
    assert [line.tone for line in findings] == ["bad", "warn"]
    assert any("`a'b`" in line.text for line in findings)
