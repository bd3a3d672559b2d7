"""What the reports say of a run, in the words that summary, artifact and messages share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPORTS = Path("reports")
SCORES = {"accuracy": "accuracy", "macro-F1": "macro_f1"}


def read_report(path: Path) -> dict[str, Any]:
    """Return a report; nothing if there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def with_interval(scores: Mapping[str, Any], key: str) -> str:
    """Return a score and its interval."""
    return f"{scores[key]:.4f} [{scores[f'{key}_low']:.4f}, {scores[f'{key}_high']:.4f}]"


def gates_passed(registration: Mapping[str, Any]) -> str:
    """Say how many gates a model passed."""
    gates = registration["gates"]
    return f"{len(gates) - len(failed_gates(registration))} of {len(gates)}"


def failed_gates(registration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the gates that a model did not pass."""
    return [gate for gate in registration["gates"] if not gate["passed"]]
