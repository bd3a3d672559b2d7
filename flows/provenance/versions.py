"""A registered version as MLflow has it, and what was kept with it."""

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
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
    from mlflow.entities import Run

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
        run: as MLflow has it; None: it was deleted.
    """

    name: str
    number: int
    aliases: list[str]
    registered: str
    tags: Mapping[str, str]
    run: "Run | None" = None

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

    asked = asked.removeprefix("models:/") or f"@{CHAMPION}"
    match = re.fullmatch("(?:(?P<name>.+)/)?(?P<number>[0-9]{1,9})|(?P<model>.*)@(?P<alias>.+)", asked)
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
        raise AttuneError(f"MLflow has no {asked}: {error}".partition("\n")[0], there) from None
    run = None
    with quiet(), suppress(MlflowException):
        run = client.get_run(found.run_id)
    return Version(
        name=model,
        number=int(found.version),
        aliases=aliases_of(aliases, found.version),
        registered=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="minutes"),
        tags={**(run.data.tags if run else {}), **found.tags},
        run=run,
    )


def fetch_kept(client: "MlflowClient", version: Version, folder: Path) -> Path:
    """Copy what was kept with a version into a folder; return where `dvc.lock`, params.yaml, reports and patch are."""
    kept, lineage = folder / "kept", version.tags.get(LINEAGE_TAG, "")
    patch = patch_artifact(version.tags.get(PATCH_TAG, ""))
    kept.mkdir()
    if version.run:
        with quiet():
            get = partial(client.download_artifacts, version.run.info.run_id, dst_path=str(folder))
            if lineage:
                shutil.copytree(get(lineage), kept, dirs_exist_ok=True)
            if patch:
                shutil.copyfile(get(patch), kept / PATCH)
    return kept
