"""What the reports say of a run, in the words that summary, artifact and messages share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.tracking.registry import REGISTERED, REGISTRATION

REPORTS = Path("reports")
SCORES = {"accuracy": "accuracy", "macro-F1": "macro_f1"}


def read_report(path: Path) -> dict[str, Any]:
    """Return a report; nothing if there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_registration() -> dict[str, Any]:
    """Return what became of the model at its gates: of `reports/registration.json`, and in the registry here.

    The latter (version, alias, whether it was promoted, the gates beside the champion) is in `logs/registered.json`;
    without it, or where it tells of another model, the alias is not known.
    """
    report, here = read_report(REGISTRATION), read_report(REGISTERED)
    if not isinstance(report.get("gates"), list):
        return {}  # of another version of Attune
    if here.get("package") != report.get("package") or not isinstance(here.get("gates"), list):
        return {**report, "promoted": False, "alias": None, "version": None}
    return {**report, **here, "gates": [*report["gates"], *here["gates"]]}


def failed_gates(registration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the gates that a model did not pass."""
    return [gate for gate in registration["gates"] if not gate["passed"]]
