"""A registered version as MLflow has it, and what was kept with it."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.provenance.lineage import aliases_of
from stages.common.errors import AttuneError
from stages.common.shown import listed
from stages.common.tracking.champions import CHAMPION
from stages.common.tracking.provenance import COMMIT_TAG, LINEAGE_TAG, PATCH_TAG, SHOWN_COMMIT_TAG, patch_artifact
from stages.common.tracking.runs import MODEL_TAG
from stages.common.tracking.store import quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient

COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
PATCH = "uncommitted.patch"  # among what is kept


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Args:
        name: of the registered model.
        number: of the version.
        aliases: in order.
        registered: time in UTC, ISO 8601.
        tags: of the run, and over them those of the version.
        run: id; nothing if it was deleted.
        run_name: of the run.
        experiment: id of the run's experiment.
        params: of the run, by dotted name.
        metrics: of the run, last values.
    """

    name: str
    number: int
    aliases: list[str]
    registered: str
    tags: Mapping[str, str]
    run: str = ""
    run_name: str = ""
    experiment: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Digest of the fine-tuned model's files."""
        return self.tags.get(MODEL_TAG, "")

    @property
    def commit(self) -> str:
        """Full hash of the commit that was checked out for the training; nothing if it is not known."""
        commit = self.tags.get(SHOWN_COMMIT_TAG) or self.tags.get(COMMIT_TAG) or ""
        return commit if COMMIT.fullmatch(commit) else ""


def find_version(client: "MlflowClient", asked: str, name: str) -> Version:
    """Return the version that is asked for.

    Args:
        client: of a store that answers.
        asked: `NAME@champion`, `NAME/3`, `@champion`, `3`, or nothing for the champion.
        name: of the registered model where none is asked for.

    Raises:
        AttuneError: if there is no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    match = re.fullmatch(
        "(?:(?P<name>.+)/)?(?P<number>[0-9]{1,9})|(?P<model>.*)@(?P<alias>.+)", asked or f"@{CHAMPION}"
    )
    if match is None:
        raise AttuneError(f"{asked!r} names no version", "write NAME@champion, NAME/3, @champion or 3")
    model, number = match["name"] or match["model"] or name, match["number"]
    try:
        with quiet():
            by_alias = client.get_model_version_by_alias
            found = client.get_model_version(model, number) if number else by_alias(model, match["alias"])
            aliases = client.get_registered_model(model).aliases
    except MlflowException as error:
        with quiet():
            names = sorted(str(one.name) for one in client.search_registered_models())
        there = f"`make champion` lists the versions; registered are: {listed(names, 5)}" if names else "make run"
        raise AttuneError(f"MLflow has no {asked or CHAMPION} of {model}: {error}".partition("\n")[0], there) from None
    version = Version(
        name=model,
        number=int(found.version),
        aliases=aliases_of(aliases, found.version),
        registered=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="minutes"),
        tags=found.tags,
    )
    try:
        with quiet():
            run = client.get_run(found.run_id)
    except MlflowException:
        return version
    return Version(
        *(version.name, version.number, version.aliases, version.registered),
        tags={**run.data.tags, **found.tags},
        run=str(run.info.run_id),
        run_name=str(run.info.run_name),
        experiment=str(run.info.experiment_id),
        params={key: value for key, value in run.data.params.items() if not key.startswith(f"{CHAMPION}.")},
        metrics=run.data.metrics,
    )


def fetch_kept(client: "MlflowClient", version: Version, folder: Path) -> Path:
    """Copy what was kept with a version into a folder; return where `dvc.lock`, params.yaml, reports and patch are."""
    kept, lineage = folder / "kept", version.tags.get(LINEAGE_TAG, "")
    kept.mkdir()
    patch = patch_artifact(version.tags.get(PATCH_TAG, ""))
    with quiet():
        if lineage and version.run:
            shutil.copytree(client.download_artifacts(version.run, lineage, str(folder)), kept, dirs_exist_ok=True)
        if patch and version.run:
            shutil.copyfile(client.download_artifacts(version.run, patch, str(folder)), kept / PATCH)
    return kept
