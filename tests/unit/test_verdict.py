"""The verdict says in plain sentences what a review comes to, and each risk in one line."""

from dataclasses import replace
from typing import Any

import pytest
from small_review import make_changes, make_effect, make_gain, make_gates, make_rebuild, make_review, make_revision

from flows.reviewing.findings import (
    CodeChange,
    Conflict,
    EnvironmentChange,
    Figure,
    Flips,
    ParamChange,
    Review,
    ValidationChange,
    VersionChange,
)
from flows.reviewing.pages.verdict import verdict_of

GROWN = Figure("weights", 100.0, 101.0, "", "lower")  # a little
NOTHING_OF_IT = Flips(0, ())


def risks(**found: Any) -> list[str]:
    """The risks of a review that has none but for these findings."""
    calm = make_effect(broken=Flips(18, ()))
    return [line.text for line in verdict_of(make_review(**{"effect": calm, **found})).risks]


@pytest.mark.parametrize(
    ("rebuild", "tone", "told"),
    [
        ("identical", "good", "Rebuilt from nothing: all 8 outs have the bytes that dvc.lock says"),
        (
            "equal",
            "good",
            "Rebuilt from nothing, equal though not to the byte: 7 of 8 outs have the same bytes, 1 are within the "
            "tolerance; 99.84 % of the test predictions are the same",
        ),
        (
            "different",
            "bad",
            "Not reproduced: `finetune` is the first stage that differs: models/finetuned/model.safetensors, 1 of 101 "
            "tensors differs, by up to 0.0039 (stages) (1 of 8 outs differ)",
        ),
        ("failed", "bad", "Not rebuilt: `finetune` failed: it ended with exit code 1"),
        (
            "tampered",
            "bad",
            "Tampered with: what `finetune` made is not what dvc.lock says: models/finetuned/model.safetensors, "
            "1 byte differs",
        ),
        ("left out", "warn", "Not rebuilt: that was left out, as asked; nobody has looked whether it can be"),
        (
            "unrecorded",
            "warn",
            "Nothing to hold a rebuild against: there is no dvc.lock, as before the first run",
        ),
    ],
)
def test_each_outcome_of_a_rebuild_has_its_sentence(rebuild: str, tone: str, told: str) -> None:
    assert verdict_of(make_review(rebuild=make_rebuild(rebuild))).reproduced == (tone, told)


def test_a_record_of_other_code_names_the_stages_and_whose_results_are_shown() -> None:
    head = make_revision(stale={"clean": "stages/clean changed"}, results="rebuilt")
    found = verdict_of(make_review(head=head, rebuild=make_rebuild("unrecorded", how="params: a")))
    assert found.reproduced.text == (
        "Nothing to hold a rebuild against: dvc.lock is not of this code, params and data (`clean`); "
        "the results below are those of the run from nothing"
    )
    assert found.risks[0] == (
        "bad",
        "dvc.lock is not of this code, params and data: `clean` (`stages/clean changed`); `make run`, then commit",
    )


def test_a_rebuild_in_a_virtual_environment_of_its_own_says_so() -> None:
    told = verdict_of(make_review(rebuild=make_rebuild(venv=True)))
    assert told.reproduced.text == (
        "Rebuilt from nothing (in a virtual environment of its own): all 8 outs have the bytes that dvc.lock says"
    )


@pytest.mark.parametrize(
    ("verdict", "told"), [("identical", False), ("equal", True), ("different", True), ("left out", False)]
)
def test_hardware_that_nobody_recorded_is_a_risk_where_bytes_differ(verdict: str, told: bool) -> None:
    found = risks(rebuild=make_rebuild(verdict, environment_known=False))
    assert ("Which hardware the recorded model was trained on is not known" in found) == told


def test_an_agreement_short_of_all_is_not_rounded_to_all() -> None:
    told = verdict_of(make_review(rebuild=make_rebuild("equal", agreement=0.999999))).reproduced.text
    assert "99.99 % of the test predictions" in told


@pytest.mark.parametrize(
    ("gates", "tone", "told"),
    [
        (make_gates(), "good", "Gates: 3 of 3 passed"),
        (make_gates("max_ece"), "bad", "Gates: 1 of 3 failed: `max_ece` (0.071, limit 0.05)"),
        (
            make_gates("max_ece", "champion"),
            "bad",
            "Gates: 2 of 3 failed: `max_ece` (0.071, limit 0.05), `champion`",
        ),
        ((), "warn", "Gates: not judged, no registration report names any"),
        (({"gate": None, "value": "<b>", "limit": [1], "passed": "yes"},), "bad", "Gates: 1 of 1 failed: `None`"),
    ],
)
def test_gates_that_failed_are_named_with_value_and_limit(gates: Any, tone: str, told: str) -> None:
    assert verdict_of(make_review(gates=gates)).gates == (tone, told)


ON = "95 % interval [{}] on the 1,281 test rows that both share; 31 rows fixed, 18 broken"


@pytest.mark.parametrize(
    ("trend", "tone", "told"),
    [
        ("better", "good", "Better: macro-F1 +0.0123, " + ON.format("+0.0031, +0.0215")),
        ("worse", "bad", "Worse: macro-F1 -0.0123, " + ON.format("-0.0215, -0.0031")),
        ("unclear", "warn", "No clear difference: macro-F1 +0.0020, " + ON.format("-0.0072, +0.0112")),
        ("same", "good", "Same: every prediction is the same on the 1,281 test rows that both share"),
    ],
)
def test_each_trend_has_its_sentence(trend: Any, tone: str, told: str) -> None:
    assert verdict_of(make_review(effect=make_effect(trend))).effect == (tone, told)


def test_the_score_that_decides_and_its_confidence_are_those_of_the_params() -> None:
    data = {
        "evaluate": {"bootstrap": {"confidence": 0.9}},
        "register": {"gates": {"champion": {"metric": "accuracy"}}},
    }
    scores = (make_gain("macro_f1", trend="better"), make_gain("accuracy", -0.02, 0.01, "worse"))
    told = verdict_of(make_review(head=make_revision(data=data), effect=make_effect(scores=scores))).effect.text
    assert told.startswith("Worse: accuracy -0.0200, 90 % interval [-0.0300, -0.0100]")


@pytest.mark.parametrize(
    ("review", "told"),
    [
        (
            make_review(base=None, changes=None, effect=None),
            "Not compared: `origin/main` has no results that this could be held against",
        ),
        (
            make_review(effect=None, base=None, failure="its stage ingest failed"),
            "Not compared: its stage ingest failed",
        ),
        (make_review(effect=None), "Not compared: one of the two sides has no predictions"),
        (make_review(effect=make_effect(rows=0)), "Not compared: no test row is in both"),
    ],
)
def test_what_cannot_be_compared_is_said_and_never_called_good(review: Review, told: str) -> None:
    assert verdict_of(review).effect == ("warn", told)


def test_a_review_without_risks_has_none() -> None:
    assert risks() == []


def test_a_conflict_of_the_lock_says_how_to_resolve_it() -> None:
    found = risks(conflict=Conflict(("dvc.lock", "reports/metrics.json", "params.yaml"), lock=True))
    assert found == [
        "Conflicts with `origin/main` in 1 file, to be solved by hand: `params.yaml`",
        "dvc.lock and reports/ conflict with `origin/main`: merge `origin/main`, take one side whole (`git checkout "
        "--theirs dvc.lock reports`), `make run` (what that side has run already is not run again), then commit",
    ]
    (alone,) = risks(conflict=Conflict(("dvc.lock",), lock=True))
    assert alone.startswith("dvc.lock conflicts with `origin/main`: merge")
    assert "`git checkout --theirs dvc.lock`" in alone


def test_a_lock_with_the_marks_of_a_merge_is_taken_from_the_base() -> None:
    found = verdict_of(make_review(conflict=Conflict(("dvc.lock",), lock=True), rebuild=make_rebuild("unrecorded")))
    assert "dvc.lock holds the marks of a merge" in found.reproduced.text
    assert "`git checkout origin/main -- dvc.lock`, `make run`" in found.risks[0].text


@pytest.mark.parametrize(
    ("key", "old", "new", "lowered"),
    [
        ("minimum.accuracy", "0.8", "0.78", True),
        ("minimum.accuracy", "0.8", "0.82", False),
        ("max_ece", "0.05", "0.06", True),
        ("max_ece", "0.05", None, True),
        ("max_ece", "0.05", "null", True),
        ("max_ece", "null", "0.05", False),
        ("champion", "{'metric': 'macro_f1'}", "null", True),
        ("champion.allowed_drop", "0.0", "0.01", True),
        ("champion.metric", "macro_f1", "accuracy", False),
        ("slices.minimum", "0.75", "0.7", True),
        ("behaviour.plain praise", "0.9", "0.95", False),
        ("beat_significantly", "true", "false", True),
        ("beat_baselines", "[majority, tfidf]", "[majority]", True),
        ("beat_baselines", "[majority]", "[majority, tfidf]", False),
        ("max_size_mb", "what", "ever", False),
    ],
)
def test_gates_that_became_easier_are_told_from_others(key: str, old: str, new: str | None, lowered: bool) -> None:
    changes = make_changes(
        params=(ParamChange(f"register.gates.{key}", old, new),), code=(), versions=(), validation=()
    )
    (line,) = [line for line in verdict_of(make_review(changes=changes)).risks if "gates themselves" in line.text]
    assert line.tone == ("bad" if lowered else "warn")
    assert line.text.startswith(f"The gates themselves {'were lowered' if lowered else 'changed'}: `{key}` `{old}` → ")


def test_a_part_that_got_worse_under_a_whole_that_did_not_is_named() -> None:
    effect = make_effect("unclear", broken=NOTHING_OF_IT, slices=(make_gain("long texts", -0.05, 0.02, "worse", 300),))
    assert risks(effect=effect) == [
        "Worse in part, though not as a whole: slice `long texts` -0.0500 [-0.0700, -0.0300]"
    ]
    assert risks(effect=replace(effect, scores=make_effect("worse").scores)) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"behind": 3}, "The head lacks 3 commits of `origin/main`, no part of this review"),
        ({"uncommitted": ("a.py",)}, "Not committed, so no part of this review: `a.py`"),
        ({"notes": ("something else",)}, "something else"),
        (
            {"effect": make_effect(broken=NOTHING_OF_IT, only_base=12, only_head=3, relabelled=5)},
            "The test rows differ: 12 only in the base, 3 only in the head, 5 relabelled; scores are on the 1,281 that "
            "both share",
        ),
        ({"effect": make_effect()}, "At least 3 rows of 18 broken with a confidence of 0.9 or more"),
        (
            {"effect": make_effect(broken=NOTHING_OF_IT, calibration=(Figure("error", 0.03, 0.07, "", "lower"),))},
            "Calibration is clearly worse: error 0.0300 → 0.0700 (+0.04)",
        ),
        (
            {"effect": make_effect(broken=NOTHING_OF_IT, costs=(Figure("size", 100.0, 120.0, "MiB", "lower"),))},
            "Larger: size 100.0 MiB → 120.0 MiB (+20.0 %)",
        ),
        (
            {"effect": make_effect(broken=NOTHING_OF_IT, costs=(GROWN, Figure("one text", 5.0, 6.5, "ms", "lower")))},
            "Slower: one text 5.00 ms → 6.50 ms (+30.0 %)",
        ),
        (
            {"changes": make_changes(params=(ParamChange("clean.split.test", "0.1", "0.2"),))},
            "What decides on the splits changed: `clean.split.test` `0.1` → `0.2`",
        ),
        (
            {"changes": make_changes(code=(CodeChange("stages/common", (("stages/common/pii.py", 1, 1),)),))},
            "stages/common changed (1 file), which re-runs nothing by itself; where it changes what a stage does, "
            "run `dvc repro --force`",
        ),
        (
            {"changes": make_changes(validation=(ValidationChange("train", True, False),))},
            "Tables that fail their contract: `train`",
        ),
        (
            {"changes": make_changes(versions=(VersionChange("torch", "2.12.0", "2.13.0", "2.12.0"),))},
            "constraints.txt changed, and nothing ran with what it pins now (`make review ARGS=--venv` does): "
            "`torch` `2.13.0`, here `2.12.0`",
        ),
        (
            {"rebuild": make_rebuild("equal", environment=(EnvironmentChange("threads", "2", "8"),))},
            "Rebuilt in another environment than it was recorded in: `threads` `2` → `8`",
        ),
        (
            {"base": make_revision("origin/main", stale={"clean": ""})},
            "The base's dvc.lock is not of its own code, params and data: `clean`",
        ),
        (
            {"rebuild": make_rebuild("tampered")},
            "What the commit or DVC's cache keeps is not what dvc.lock says: `models/finetuned/model.safetensors`",
        ),
    ],
)
def test_each_risk_has_its_line(found: dict[str, Any], told: str) -> None:
    assert told in risks(**found)


def test_sources_that_may_change_by_themselves_are_named_without_their_tokens() -> None:
    source = {"url": "https://example.org/a.csv?token=geheim-1234", "columns": {"text": "text", "label": "label"}}
    data = {"ingest": {"sources": [source], "base_model": {"path": "data/inbox/base"}}}
    assert risks(head=make_revision(data=data)) == [
        "Sources without a pin, which may hold something else tomorrow: `https://example.org/a.csv`"
    ]
    assert risks(head=make_revision(data={"ingest": {"of": "another version"}})) == []


def test_a_secret_in_what_another_part_wrote_is_gone() -> None:
    assert risks(notes=("fetch https://me:geheim-1234@example.org/a.git failed",)) == [
        "fetch https://me:***@example.org/a.git failed"
    ]


def test_bad_risks_come_before_the_others() -> None:
    found = verdict_of(
        make_review(behind=1, conflict=Conflict(("a.py",), lock=False), rebuild=make_rebuild("tampered"))
    ).risks
    assert [line.tone for line in found] == sorted(line.tone for line in found)
    assert {line.tone for line in found} == {"bad", "warn"}


def test_a_foreign_name_cannot_end_the_code_that_it_stands_in() -> None:
    found = verdict_of(make_review(asked_base="a`b", behind=2)).risks
    assert any("`a'b`" in line.text for line in found)
