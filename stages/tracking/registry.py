"""The MLflow model registry: a version per trained model, the alias `champion` for the one in use, tags for the past.

A champion that somebody set by hand in MLflow is the champion, and the next change goes on from there.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from stages.common.digests import sha256_path
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import write_json
from stages.tracking.package import PACKAGE_TAG, log_and_register, package_digest
from stages.tracking.runs import MODEL_TAG
from stages.tracking.store import connect, has_database, sqlite_file, tracking_uri

if TYPE_CHECKING:  # `make plan` and each flow import this module, and would wait for numpy and polars
    from mlflow import MlflowClient

    from stages.serving.backends import Package

CHAMPION, CHALLENGER = "champion", "challenger"
# Tags of a version
PROMOTED_TAG = "attune.promoted"  # when it was last put into use (UTC)
REPLACED_TAG = "attune.replaced"  # when another one last took its place (UTC)
DEMOTED_TAG = "attune.demoted"  # when and why it was rolled back
VERDICT_TAG = "attune.champion_verdict"  # how it compared with the champion, for people
REGISTRATION = Path("reports/registration.json")
REGISTERED = Path("logs/registered.json")  # no out: version, alias and champion differ from registry to registry
STAMP = Path("logs/registered.model")  # the out of `register` that Git does not keep: which model is registered
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # how stores say that there is no such alias or version
LISTS = "see who was: make champion"
VERSIONS = (  # MLflow keeps the tags of a version that was deleted
    "SELECT storage_location FROM model_version_tags JOIN model_versions USING (name, version) "
    "WHERE name = ? AND key = ? AND value = ? AND current_stage != 'Deleted_Internal'"
)


class RegistryState(NamedTuple):
    """What became of a model in the registry."""

    version: int
    alias: str | None  # None: another one is champion, and this one would have to be compared with it
    new_champion: bool = False  # just now


class ChampionComparison(NamedTuple):
    """How a model compared with the champion of the registry that it is registered in."""

    passed: bool  # it may take the champion's place
    reason: str  # for people
    champion: int | None  # the version in use that it was compared with; None: there was none


class Overtaken(AttuneError):
    """Another model became champion in the meantime."""


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
        file = sqlite_file(tracking_uri())
        if not file or os.environ.get("MLFLOW_REGISTRY_URI"):
            return version_of(connect(), self) is not None
        if not has_database(file):
            return False
        # Asked without MLflow, whose import takes seconds that each `make run` and `make plan` would wait for.
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            found = database.execute(VERSIONS, (self.model_name, PACKAGE_TAG, self.package)).fetchall()
        return any(_has_files(location) for (location,) in found)


def ensure_registered(
    client: "MlflowClient",
    registration: Registration,
    run_id: str,
    package: "Package",
    card: Path,
    comparison: ChampionComparison | None = None,
) -> RegistryState:
    """Register the model unless it is registered already, and give it the alias that it has earned.

    Without a comparison with the champion, it takes the place of none, and becomes one only in a registry that never
    had any. An AttuneError if the parts are others than those that were judged; Overtaken if another model became
    champion since the comparison.
    """
    name, version = registration.model_name, version_of(client, registration)
    if version is None:
        digests = sha256_path(package.model), package_digest(package)
        if digests != (registration.model, registration.package):
            raise AttuneError("models/ is not the model of reports/registration.json", "make both anew: make run")
        version = log_and_register(client, name, run_id, package, card)
    current = champion_number(client, name)
    if current == version:
        return RegistryState(version, CHAMPION)
    if comparison and comparison.reason:
        client.set_model_version_tag(name, str(version), VERDICT_TAG, comparison.reason)
    if not registration.passed or (comparison and not comparison.passed):
        client.set_registered_model_alias(name, CHALLENGER, str(version))
        return RegistryState(version, CHALLENGER)
    if comparison:
        promote(client, name, version, comparison.champion)
        return RegistryState(version, CHAMPION, new_champion=True)
    if current is None and not any(PROMOTED_TAG in tags for tags in version_tags(client, name).values()):
        with suppress(Overtaken):
            promote(client, name, version, None)
            return RegistryState(version, CHAMPION, new_champion=True)
    return RegistryState(version, None)


def version_of(client: "MlflowClient", registration: Registration) -> int | None:
    """Return the registered version of a model with all its parts, if there is one and its files are not known gone."""
    local = sqlite_file(client.tracking_uri) and not os.environ.get("MLFLOW_REGISTRY_URI")
    name, location = registration.model_name, client.get_model_version_download_uri
    found = client.search_model_versions(f"name = '{name}' and tags.`{PACKAGE_TAG}` = '{registration.package}'")
    numbers = sorted((int(version.version) for version in found), reverse=True)
    return next((number for number in numbers if not local or _has_files(location(name, str(number)))), None)


def check_files(client: "MlflowClient", name: str, version: int) -> None:
    """Raise AttuneError if the files of a version are known to be gone: nobody could use it."""
    if not _has_files(where := client.get_model_version_download_uri(name, str(version))):
        what = f"the files of {name} version {version} are not to be had at {where}"
        raise AttuneError(what, "put them back; or make the model again: make run")


def _has_files(location: str | None) -> bool:
    """Return whether the files of a version are there: looked for on this machine, else believed to be."""
    parts = urlsplit(location or "")
    return parts.scheme not in ("", "file") or (Path(unquote(parts.path)) / "MLmodel").exists()


def version_tags(client: "MlflowClient", name: str) -> dict[int, dict[str, str]]:
    """Return the tags of each version of a registered model, by its number."""
    return {int(version.version): version.tags for version in client.search_model_versions(f"name = '{name}'")}


def champion(client: "MlflowClient", name: str) -> Any | None:
    """Return the registered version in use, or None if there is none."""
    with unless_gone():
        return client.get_model_version_by_alias(name, CHAMPION)
    return None


def champion_number(client: "MlflowClient", name: str) -> int | None:
    """Return the number of the version in use, or None if there is none."""
    current = champion(client, name)
    return int(current.version) if current else None


def previous_champion(client: "MlflowClient", name: str) -> int | None:
    """Return the version that was in use last before the champion, leaving out those that were rolled back."""
    current = champion_number(client, name)
    replaced = [
        (tags[REPLACED_TAG], number)
        for number, tags in version_tags(client, name).items()
        if REPLACED_TAG in tags and DEMOTED_TAG not in tags and number != current
    ]
    return max(replaced)[1] if replaced else None


def promote(client: "MlflowClient", name: str, version: int, previous: int | None) -> None:
    """Make a version champion; Overtaken if that is no longer `previous`, which it was compared with (None: no one)."""
    time = _utc_now()
    if previous is not None and previous != version:
        with unless_gone():
            client.set_model_version_tag(name, str(previous), REPLACED_TAG, time)
    if champion_number(client, name) != previous:  # asked last: MLflow gives an alias to whoever comes last
        fix = "see who it is: make champion; judge this model again: make register"
        raise Overtaken("another model became champion in the meantime", fix, passing=True)
    client.set_registered_model_alias(name, CHAMPION, str(version))
    client.set_model_version_tag(name, str(version), PROMOTED_TAG, time)
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == str(version):
        client.delete_registered_model_alias(name, CHALLENGER)


def roll_back(client: "MlflowClient", name: str, to: int | None = None, reason: str = "") -> tuple[int, int]:
    """Put the previous champion (or an earlier one, rolled back or not) back into use.

    The version rolled back and the one in use now are returned. An AttuneError if there is nothing to go back to, or
    somebody else changed the champion just now.
    """
    current, versions = champion_number(client, name), version_tags(client, name)
    if current is None:
        raise AttuneError(f"{name} has no champion that could be rolled back", LISTS)
    to = previous_champion(client, name) if to is None else to
    if to is None:
        fix = f"{LISTS}; for one that was rolled back: make rollback ARGS='--to N'"
        raise AttuneError(f"no champion is known that was in use before version {current}", fix)
    if to == current or not {PROMOTED_TAG, REPLACED_TAG} & versions.get(to, {}).keys():
        fix = f"{LISTS}; to use a version all the same, give it the alias champion in MLflow: make ui"
        raise AttuneError(f"version {to} is no earlier champion of {name}", fix)
    check_files(client, name, to)
    why = " ".join(reason.split())[:500] or "no reason given"
    client.set_model_version_tag(name, str(current), DEMOTED_TAG, f"{_utc_now()}: {why}")
    if DEMOTED_TAG in versions[to]:
        client.delete_model_version_tag(name, str(to), DEMOTED_TAG)
    promote(client, name, to, current)
    return current, to


def demotion(client: "MlflowClient", name: str, digest: str) -> tuple[int, str] | None:
    """Return the version of a model (by the digest of its files) that was rolled back, and why; None if none was."""
    same = {number: tags for number, tags in version_tags(client, name).items() if tags.get(MODEL_TAG) == digest}
    return max(((number, tags[DEMOTED_TAG]) for number, tags in same.items() if DEMOTED_TAG in tags), default=None)


@contextmanager
def unless_gone() -> Iterator[None]:
    """Leave out what cannot be done because model, version, alias or run are missing (or no longer exist)."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in GONE:
            raise


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
