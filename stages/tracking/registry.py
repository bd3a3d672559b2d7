"""The MLflow model registry: one version per trained model, `champion` for the one in use."""

import json
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from stages.common.errors import AttuneError
from stages.common.pipeline.stage import write_json
from stages.tracking.champions import (
    CHALLENGER,
    CHAMPION,
    PROMOTED_TAG,
    Overtaken,
    champion,
    promote,
    version_tags,
)
from stages.tracking.packaging import PACKAGE_TAG, log_and_register, package_digest
from stages.tracking.runs import MODEL_TAG, model_digest
from stages.tracking.store import connect, tracking_uri

if TYPE_CHECKING:  # `make plan` and each flow import this module, and would wait for numpy and polars
    from mlflow import MlflowClient

    from stages.serving.classifier import Package

VERDICT_TAG = "attune.champion_verdict"  # of a version: what became of it beside the champion, for people
REGISTRATION = Path("reports/registration.json")
REGISTERED = Path("logs/registered.json")  # no out: version, alias and champion differ from registry to registry
STAMP = Path("logs/registered.model")  # the out of `register` that Git does not keep: which model is registered
KNOWN = (  # MLflow keeps the tags of a version that was deleted
    "SELECT 1 FROM model_version_tags JOIN model_versions USING (name, version) "
    "WHERE name = ? AND key = ? AND value = ? AND current_stage != 'Deleted_Internal'"
)


class Registered(NamedTuple):
    """What became of a model in the registry."""

    version: int
    alias: str | None  # None: another one is champion, and this one would have to be judged
    new_champion: bool = False  # just now


@dataclass(frozen=True)
class Registration:
    """What `reports/registration.json` says of a model; the same on every machine, whoever is champion there."""

    model_name: str  # in the registry
    model: str  # digest of its weights
    package: str  # digest of all that its answers depend on
    passed: bool  # the gates that need nothing but its own reports
    gates: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path = REGISTRATION) -> "Registration":
        """Read a report; an AttuneError if it is another, such as that of an earlier version of Attune."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError):
            raise AttuneError(f"{path} is not understood", "make it again: make register") from None

    def write(self, report: Path, stamp: Path) -> None:
        """Write the report, and the stamp that goes with it."""
        write_json(asdict(self), report)
        self.stamp(stamp)

    def stamp(self, path: Path) -> None:
        """Write the out by which DVC knows that `register` has run for this model."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{self.model_name} {self.package}\n", encoding="utf-8")

    @property
    def known(self) -> bool:
        """Whether the registry that MLflow's address names has this model; any exception, if it does not answer."""
        uri = tracking_uri()
        if not uri.startswith("sqlite:///") or os.environ.get("MLFLOW_REGISTRY_URI"):
            return version_of(connect(), self.model_name, self.model, self.package) is not None
        file = Path(uri.removeprefix("sqlite:///"))
        if not file.exists():
            return False
        # Asked without MLflow, whose import takes seconds that each `make run` and `make plan` would wait for.
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as store:
            try:
                return store.execute(KNOWN, (self.model_name, PACKAGE_TAG, self.package)).fetchone() is not None
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # a store without a registry yet
                    return False
                raise


class ChampionVerdicts(NamedTuple):
    """What became of a model beside the champion, in the registry where it was judged."""

    passed: bool  # it may take the champion's place
    reason: str  # for people
    seen: int | None  # the version in use that it was compared with; None: there was none


def version_of(client: "MlflowClient", name: str, digest: str, package: str | None = None) -> int | None:
    """Return the registered version with this model digest (and this digest of all parts), if there is one."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_TAG}` = '{digest}'")
    same = (version for version in found if package is None or version.tags.get(PACKAGE_TAG) == package)
    return max((int(version.version) for version in same), default=None)


def ensure_registered(
    client: "MlflowClient",
    registration: Registration,
    run_id: str,
    package: "Package",
    card: Path,
    beside: ChampionVerdicts | None = None,
) -> Registered:
    """Register the model unless it is there, and give it the alias it has earned.

    Args:
        client: of a store that answers.
        registration: what the model's own gates said.
        run_id: of the model's run.
        package: its parts, which must be those of the registration.
        card: its model card.
        beside: what the comparison with the champion said. None: it was not made now, so that the model takes the place
            of no champion, and becomes one only in a registry that never had any.

    Raises:
        Overtaken: if another model became champion since it was judged.
    """
    name, parts = registration.model_name, registration.package
    version = version_of(client, name, registration.model, parts)
    if version is None:
        if (model_digest(package.model), package_digest(package)) != (registration.model, parts):
            raise AttuneError("models/ is not the model of reports/registration.json", "make both anew: make run")
        version = log_and_register(client, name, run_id, package, card)
    current = champion(client, name)
    if current is not None and int(current.version) == version:
        return Registered(version, CHAMPION)
    if beside is not None and beside.reason:
        client.set_model_version_tag(name, str(version), VERDICT_TAG, beside.reason)
    if not registration.passed or (beside is not None and not beside.passed):
        client.set_registered_model_alias(name, CHALLENGER, str(version))
        return Registered(version, CHALLENGER)
    if beside is not None:
        promote(client, name, version, beside.seen)
        return Registered(version, CHAMPION, new_champion=True)
    if current is None and not any(PROMOTED_TAG in tags for tags in version_tags(client, name).values()):
        with suppress(Overtaken):
            promote(client, name, version, None)
            return Registered(version, CHAMPION, new_champion=True)
    return Registered(version, None)
