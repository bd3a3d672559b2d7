"""What the stage register writes depends on who is champion where it runs: it is compared without that."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flows.reviewing.compared.closeness import Slack, json_apart, lines_apart
from flows.reviewing.compared.file_differences import difference, json_difference
from stages.common.shown import shown
from stages.common.tracking.champions import CHAMPION

BESIDE = (CHAMPION, "not rolled back", "promotion")  # gates that ask the registry (stages/register/champion.py)
MEASURED = ("max_latency_ms",)  # by the clock, so another time it may go the other way
FOLLOWS = ("promoted", "alias", "gates")  # of the report: what all gates together decide, and the gates themselves
HEADING = "## Gates"
NAME = 80  # characters shown of a gate's name

Verdict = Literal["equal", "apart", "different"]


class Judged(NamedTuple):
    """What became of one of register's files, and how it differs."""

    verdict: Verdict
    how: str


def compare_registrations(old: Path, new: Path, slack: Slack | None) -> Judged:
    """Compare two `reports/registration.json` of other bytes.

    Args:
        old: the recorded one.
        new: the rebuilt one.
        slack: what numbers may differ in, where the models count as equal though their bytes differ; the same gates
            have to pass then. None: in nothing.
    """
    before, after = _report(old), _report(new)
    if before is None or after is None:
        return Judged("different", difference(old, new))
    for report, whose in ((before, "the recorded one"), (after, "the rebuilt one")):
        if told := _contradiction(report):
            return Judged("different", f"{whose} {told}")
    if not (how := json_difference(_own(before), _own(after))):
        return Judged("apart", _why_apart(before, after))
    if slack is None:
        return Judged("different", how)
    passed, passes = _passed(before), _passed(after)
    if passed.keys() != passes.keys():
        return Judged("different", "there are other gates")
    if turned := [name for name in passed if passed[name] != passes[name]]:
        name = shown(turned[0], NAME)
        said = "passed in the record and fails here" if passed[turned[0]] else "failed in the record and passes here"
        return Judged("different", f"gate {name} {said}")
    if told := json_apart(_own(before), _own(after), slack):
        return Judged("different", told)
    return Judged("equal", how)


def compare_cards(old: Path, new: Path, slack: Slack | None) -> Judged:
    """Compare two `reports/model_card.md` of other bytes, by more than their bytes only with some slack."""
    try:
        before, after = _own_lines(old), _own_lines(new)
    except (OSError, UnicodeDecodeError):
        return Judged("different", difference(old, new))
    if before == after:
        return Judged("apart", "judged against another champion; the rest is the same")
    if slack is None:
        return Judged("different", difference(old, new))
    told = lines_apart(_lasting(before), _lasting(after), slack)
    return Judged("different", told) if told else Judged("equal", difference(old, new))


def _report(path: Path) -> dict[str, Any] | None:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        unique = len({gate["gate"]: gate["passed"] for gate in report["gates"]}) == len(report["gates"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return report if isinstance(report, dict) and unique else None


def _contradiction(report: Mapping[str, Any]) -> str:
    """Return how a report contradicts itself; nothing if it does not."""
    failed = [gate["gate"] for gate in report["gates"] if not gate["passed"]]
    if report.get("promoted") and failed:
        return f"says promoted, though the gate {shown(str(failed[0]), NAME)} failed"
    if not report.get("promoted") and not failed:
        return "says not promoted, though no gate failed"
    if report.get("promoted") and report.get("alias") != CHAMPION:
        return f"says promoted, though not {CHAMPION}"
    return ""


def _own(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a report follows from model, data and params alone."""
    gates = {gate["gate"]: gate for gate in report["gates"] if gate["gate"] not in BESIDE + MEASURED}
    return {**{key: value for key, value in report.items() if key not in FOLLOWS}, "gates": gates}


def _passed(report: Mapping[str, Any]) -> dict[str, bool]:
    gates = {str(gate["gate"]): bool(gate["passed"]) for gate in report["gates"]}
    return {name: passed for name, passed in gates.items() if name not in BESIDE + MEASURED}


def _why_apart(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    def of(report: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
        return [gate for gate in report["gates"] if gate["gate"] in names]

    reasons = []
    if of(before, BESIDE) != of(after, BESIDE) or before.get("alias") != after.get("alias"):
        reasons.append("judged against another champion")
    if of(before, MEASURED) != of(after, MEASURED):
        reasons.append("the latency measured here decides otherwise")
    return f"{' and '.join(reasons) or 'written otherwise'}; the other gates agree"


def _lasting(lines: list[str]) -> list[str]:
    """Return a card's lines but for those of which slices are weakest and which exports were quick enough."""
    kept, among_slices = [], False
    for line in lines:
        among_slices = line.startswith("| weakest of ") or (among_slices and line.startswith("|"))
        if not among_slices and not line.startswith("| ONNX"):
            kept.append(line)
    return kept


def _own_lines(card: Path) -> list[str]:
    """Return the lines of a card but for those of gates that are judged elsewhere."""
    lines, among_gates = [], False
    for line in card.read_text(encoding="utf-8").split("\n"):
        if line.startswith("## "):
            among_gates = line == HEADING
        name = line.replace("\\", "").partition(":")[0].removeprefix("- passed ").removeprefix("- FAILED ")
        if not (among_gates and line.startswith("- ") and name in BESIDE + MEASURED):
            lines.append(line)
    return lines
