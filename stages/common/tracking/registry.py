"""The MLflow model registry: one version per trained model, `champion` for the one in use."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stages.common.serving.classifier import Package
from stages.common.tracking.champions import CHALLENGER, CHAMPION, Overtaken, insist
from stages.common.tracking.making import keep_making
from stages.common.tracking.packaging import PACKAGE_TAG, log_and_register, package_digest
from stages.common.tracking.promotion import Standing, champion, promote, standing
from stages.common.tracking.runs import MODEL_TAG
from stages.common.tracking.store import quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERDICT_TAG = "attune.champion_verdict"  # what a champion's own promotion found: a later look finds the same


class Registered(NamedTuple):
    """A version, and the alias that it has; None: another one is champion, and this one would have to be judged."""

    version: int
    alias: str | None


@dataclass(frozen=True)
class Registration:
    """What `reports/registration.json` says of a model: the gates it went through and what came of it."""

    model_name: str
    model: str
    promoted: bool
    champion_gate: dict[str, Any] | None
    gates: list[dict[str, Any]]
    in_use: bool = False  # champion from before: it stays that until another passes, even if it failed a gate now

    @property
    def alias(self) -> str:
        """The alias that the model has."""
        return CHAMPION if self.promoted or self.in_use else CHALLENGER

    def as_report(self) -> dict[str, Any]:
        """Return the report's content."""
        fields = asdict(self)
        gates, _ = fields.pop("gates"), fields.pop("in_use")
        return {**fields, "alias": self.alias, "gates": gates}

    def champion_verdict(self) -> str:
        """Return the champion gate's settings and verdict as text, for the version to remember."""
        verdict = next((gate for gate in self.gates if gate["gate"] == CHAMPION), None)
        return json.dumps({"settings": self.champion_gate, "verdict": verdict})

    @classmethod
    def read(cls, path: Path) -> "Registration":
        """Read a report."""
        report = json.loads(path.read_text(encoding="utf-8"))
        in_use = report.pop("alias") == CHAMPION and not report["promoted"]
        return cls(**report, in_use=in_use)


def version_of(client: "MlflowClient", name: str, digest: str, package: str | None = None) -> int | None:
    """Return the registered version with this model digest (and this digest of all parts), if there is one."""
    with quiet():
        found = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_TAG}` = '{digest}'")
    same = (version for version in found if package is None or version.tags.get(PACKAGE_TAG) == package)
    return max((int(version.version) for version in same), default=None)


def is_same(version: Any, digest: str, package: str) -> bool:
    """Say whether a registered version has these weights, and all else that its answers depend on."""
    return bool(version.tags.get(MODEL_TAG) == digest and version.tags.get(PACKAGE_TAG) == package)


def ensure_registered(
    client: "MlflowClient",
    registration: Registration,
    run_id: str,
    package: Package,
    card: Path,
    seen: Standing | None = None,
    reports: Mapping[str, Path] | None = None,
) -> Registered:
    """Register the model unless it is there, and give it the alias it has earned.

    Args:
        client: of a store that answers.
        registration: what the gates said.
        run_id: of the model's run.
        package: its parts.
        card: its model card.
        seen: the champion it was judged against. None: it was judged some time ago, so that it takes the place of no
            champion, and becomes one only in a registry that never had any.
        reports: of the run, by path; None: the version keeps nothing of its making.

    Raises:
        Overtaken: if another model became champion since it was judged.
    """
    name, parts = registration.model_name, package_digest(package)
    version = version_of(client, name, registration.model, parts)
    if version is None:
        version = log_and_register(client, registration, run_id, package, card)
    if reports is not None:
        keep_making(client, name, version, run_id, parts, reports)
    now = standing(client, name)
    current = champion(client, name)
    if current is not None and is_same(current, registration.model, parts):
        return Registered(int(current.version), CHAMPION)
    with quiet():
        if not registration.promoted:
            insist(client.set_registered_model_alias, name, CHALLENGER, str(version))
            return Registered(version, CHALLENGER)
        if seen is None and (now.entries or current is not None):
            return Registered(version, None)
        client.set_model_version_tag(name, str(version), VERDICT_TAG, registration.champion_verdict())
    try:
        promote(client, name, version, seen or now)
    except Overtaken:
        if seen is None:
            return Registered(version, None)
        raise
    return Registered(version, CHAMPION)
