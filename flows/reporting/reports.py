"""What the reports of a project say of its last run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params.tasks import TaskSpec, task_names, task_spec
from stages.tasks import FIRST
from stages.tracking.provenance import MANIFEST
from stages.tracking.registry import REGISTERED, REGISTRATION

REPORTS = Path("reports")
SPLIT_FILES = tuple(f"data/clean/{name}.parquet" for name in ("train", "validation", "test"))


@dataclass(frozen=True)
class Reports:
    """What the reports say at one moment: `reports/scores.json`, `clean.json` and `export.json`, and the gates."""

    metrics: dict[str, Any] = field(default_factory=dict)
    registration: dict[str, Any] = field(default_factory=dict)  # as `read_registration` returns it
    clean: dict[str, Any] = field(default_factory=dict)  # with the rows that ingest read
    export: dict[str, Any] = field(default_factory=dict)


def read_reports() -> Reports:
    """Return what the reports say now; a run asks before it begins, and at its end."""
    metrics, clean, export = (read_report(REPORTS / f"{name}.json") for name in ("scores", "clean", "export"))
    if clean and (rows := read_report(Path(MANIFEST)).get("rows_read")):
        clean["rows_in"] = rows  # ingest rejects rows, too
    return Reports(metrics, read_registration(), clean, export)


def read_registration() -> dict[str, Any]:
    """Return what became of the model at its gates: of `reports/registration.json`, and in the registry here.

    The latter (version, alias, whether it was promoted, the gates beside the champion) is in `logs/registered.json`;
    without it, or where it tells of another model, the alias is not known.
    """
    report, registered = read_report(REGISTRATION), read_report(REGISTERED)
    if not isinstance(report.get("gates"), list):
        return {}  # of another version of Attune
    if registered.get("package") != report.get("package") or not isinstance(registered.get("gates"), list):
        return {**report, "promoted": False, "alias": None, "version": None}
    return {**report, **registered, "gates": [*report["gates"], *registered["gates"]]}


def read_report(path: Path) -> dict[str, Any]:
    """Return a report; nothing if there is none, or none that can be read."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def new_champion(earlier: Reports, current: Reports) -> bool:
    """Say whether a run made a champion of a model that was none before."""
    registration = current.registration
    return bool(registration.get("new_champion")) and registration != earlier.registration


def spec_of(scores: Mapping[str, Any]) -> TaskSpec:
    """Return the facts of the task of `reports/scores.json`; an AttuneError if the code here has no such."""
    name = str(scores.get("task", FIRST))
    if name not in task_names():
        raise AttuneError(f"these results are of a task that is not known here: {display(name, 60)}", "use their code")
    return task_spec(name)


def base_model_of(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return (origin, SHA-256 of the weights) of the base model; several files of weights, a digest each."""
    base = manifest.get("base_model") or {}
    hashes = sorted((base.get("sha256") or {}).items())
    return str(base.get("origin", "")), ", ".join(str(hash_) for name, hash_ in hashes if name.endswith(".safetensors"))
