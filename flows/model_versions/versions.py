"""A registered version as MLflow has it, what was kept with it, and which runs and versions belong to a model.

MLflow's server may be away: what asks it says so as an `AttuneError`, or takes only so many seconds.
"""

import contextvars
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stages.common.errors import AttuneError
from stages.common.git import NoGit, git
from stages.tracking.package import find_version as find
from stages.tracking.provenance import LINEAGE_TAG, PATCH_TAG, SCORES, SHOWN_COMMIT_TAG, patch_artifact
from stages.tracking.registry import CHAMPION
from stages.tracking.runs import MODEL_TAG
from stages.tracking.store import client_of, has_database, quiet, reason_of, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DIGEST = re.compile("[0-9a-f]{64}")
PATCH = "uncommitted.patch"  # beside what is kept
SECONDS = 8.0  # MLflow takes up to three of them to import

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: int
    aliases: list[str]
    tags: Mapping[str, str]  # of the run, and over them those of the version
    run: "Run | None"  # None: it was deleted
    model: str  # digest of the fine-tuned model's files


def find_version(client: "MlflowClient", asked: str, name: str) -> Version:
    """Return a version: `NAME@champion`, `NAME/3`, or of the model `name` `@champion`, `3` or nothing (the champion).

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
        version = find(client, model, number or match["alias"])
        aliases = client.get_registered_model(model).aliases
    except MlflowException as error:
        raise AttuneError(f"MLflow has no {asked}: {reason_of(error)}", "list the versions: make champion") from None
    run = None
    with suppress(MlflowException):
        run = client.get_run(version.run_id)
    tags = {**(run.data.tags if run else {}), **version.tags}
    names = aliases_of(aliases, version.version)
    return Version(model, int(version.version), names, tags, run, tags.get(MODEL_TAG, ""))


def commit_of(home: Path, version: Version) -> str:
    """Return the commit that was checked out for the training, or nothing.

    Where it was not noted, it is the latest commit, of any branch or Attune's own references, whose scores are of the
    model.
    """
    model = version.model
    if (commit := version.tags.get(SHOWN_COMMIT_TAG, "")) or not model:
        return commit
    with suppress(NoGit):  # without the commits that removed the file
        commits = git(home, "log", "--all", "--format=%H", "--diff-filter=d", f"-S{model}", "--", SCORES).split()
        return next((commit for commit in commits if model in git(home, "show", f"{commit}:{SCORES}")), "")
    return ""


def fetch_kept(client: "MlflowClient", version: Version, folder: Path) -> Path:
    """Copy what was kept with a version (`dvc.lock`, params, reports) into a folder; return where, beside the patch."""
    kept = folder / "kept"
    kept.mkdir()
    if version.run:
        run_id = version.run.info.run_id
        if lineage := version.tags.get(LINEAGE_TAG):
            shutil.copytree(client.download_artifacts(run_id, lineage, str(folder)), kept, dirs_exist_ok=True)
        if patch := patch_artifact(version.tags.get(PATCH_TAG, "")):
            shutil.copyfile(client.download_artifacts(run_id, patch, str(folder)), folder / PATCH)
    return kept


def find_records(store: str, model: str) -> "tuple[Run | None, list[str]]":
    """Return the run of a model (by the digest of its files) and what it is registered as: `films version 4 champion`.

    Raises:
        Exception: of whatever kind, if there is no such store or it does not answer within seconds.
    """
    check_there(store)

    def search() -> "tuple[Run | None, list[str]]":
        with quiet():
            client, wanted = client_of(store), f"tags.`{MODEL_TAG}` = '{model}'"
            everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
            runs = client.search_runs(everywhere, filter_string=wanted, max_results=1)
            versions = client.search_model_versions(wanted)
            lines = []
            for version in sorted(versions, key=lambda version: (version.name, int(version.version))):
                aliases = aliases_of(client.get_registered_model(version.name).aliases, version.version)
                lines.append(f"{version.name} version {version.version} {', '.join(aliases)}".rstrip())
        return runs[0] if runs else None, lines

    return run_with_timeout(SECONDS, search)


def aliases_of(aliases: Mapping[str, Any], version: Any) -> list[str]:
    """Return the aliases that name a version, of all of its registered model."""
    return sorted(alias for alias, number in aliases.items() if str(number) == str(version))


# ── a server that may be away ─────────────────────────────────────────────────────────────────────────────────────────
def run_with_timeout(seconds: float, work: Callable[[], T]) -> T:
    """Do work in a thread of its own, in the caller's context, and return its result; a TimeoutError if it is late.

    A thread cannot be ended: one that is late is ignored, and does not keep the program from ending.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


def check_there(tracking: str) -> None:
    """Raise FileNotFoundError where there is no store: asking MLflow would make a SQLite file."""
    if (file := sqlite_file(tracking)) and not has_database(file):
        raise FileNotFoundError("there is no store yet: nothing was trained or published here")


@contextmanager
def asking_mlflow(fix: str, what: str = "MLflow cannot be asked") -> Iterator[None]:
    """Turn whatever MLflow raises (a server that is away, a missing driver, an unknown address) into an AttuneError."""
    try:
        yield
    except AttuneError:
        raise
    except Exception as error:
        raise AttuneError(f"{what}: {reason_of(error)}", fix) from None
