"""A registered version as MLflow has it, and what it keeps of its making."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.told.reports import read_report
from stages.common.errors import AttuneError
from stages.common.params.loading import PARAMS_FILE
from stages.common.redact import redacted
from stages.common.shown import listed, shown
from stages.common.tracking.champions import CHAMPION, DEMOTED_TAG
from stages.common.tracking.checkout import BRANCH_TAG, COMMIT_TAG, DIRTY_TAG, SHOWN_COMMIT_TAG
from stages.common.tracking.making import LOCK, MAKING_TAG, MANIFEST, PATCH, PATCH_TAG
from stages.common.tracking.origin import RECIPE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_OUT = "models/finetuned"
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
KEPT_AT = re.compile("lineage/[0-9a-f]{12}")


@dataclass(frozen=True)
class Version:
    """A version of a registered model. All texts are as the store has them: a stranger may have written them.

    Args:
        name: of the registered model.
        number: of the version.
        aliases: in order.
        registered: time in UTC, to the minute.
        model: digest of the fine-tuned model's files.
        run: id; None: it has none, or it was deleted.
        run_name: of the run.
        experiment: id of the run's experiment.
        tags: of the run, and over them those of the version.
        params: of the run, by dotted name.
        metrics: of the run, last values.
    """

    name: str
    number: int
    aliases: tuple[str, ...]
    registered: str
    model: str
    run: str | None = None
    run_name: str = ""
    experiment: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """Full hash of the commit that was checked out for the training; nothing: not known, or no hash."""
        said = self.tags.get(SHOWN_COMMIT_TAG) or self.tags.get(COMMIT_TAG) or ""
        return said if COMMIT.fullmatch(said) else ""

    @property
    def branch(self) -> str:
        """The branch that was checked out, if one was."""
        return self.tags.get(BRANCH_TAG, "")

    @property
    def recipe(self) -> str:
        """The recipe that its params were, as its run says."""
        return self.tags.get(RECIPE_TAG, "")

    @property
    def state(self) -> str:
        """Whether code and configuration differed from the commit, and what became of the difference."""
        dirty, patch = self.tags.get(DIRTY_TAG), self.tags.get(PATCH_TAG, "")
        if patch.startswith("kept"):
            return f"with uncommitted changes, which are {patch}"
        if patch.startswith("not kept"):
            return f"with uncommitted changes, {patch}"
        if dirty == "true":
            return "with uncommitted changes, not kept"
        return "clean" if patch == "none" or dirty == "false" else ""

    @property
    def demoted(self) -> str:
        """Why it was rolled back, if it was."""
        return self.tags.get(DEMOTED_TAG, "")


@dataclass(frozen=True)
class Making:
    """What a version keeps of its making.

    Args:
        folder: of all the files, by their path in the project.
        lock: stages of its `dvc.lock`.
        manifest: what `ingest` read.
    """

    folder: Path
    lock: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def patch(self) -> Path | None:
        """The changes that no commit has, if there were any."""
        file = self.folder / PATCH
        return file if file.exists() else None

    @property
    def params(self) -> str:
        """Text of its params.yaml."""
        return (self.folder / PARAMS_FILE).read_text(encoding="utf-8")

    def report(self, path: str) -> dict[str, Any]:
        """Return a report, such as `reports/metrics.json`; nothing if there is none."""
        return read_report(self.folder / path)

    def md5(self, out: str) -> str:
        """Return the MD5 of an out, as its lock has it, or nothing."""
        outs = (entry for stage in self.lock.values() for entry in stage.get("outs", []))
        return next((str(entry.get("md5", "")) for entry in outs if entry.get("path") == out), "")


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

    from stages.common.tracking.store import quiet

    model, which = _parsed(asked, name)
    said = f"{shown(model, 60)}{'/' if which.isdigit() else '@'}{shown(which, 60)}"
    try:
        with quiet():
            by_alias = client.get_model_version_by_alias
            found = client.get_model_version(model, which) if which.isdigit() else by_alias(model, which)
            aliases = client.get_registered_model(model).aliases
    except MlflowException as error:
        why = shown(redacted(str(error)).partition("\n")[0], 160)
        raise AttuneError(f"MLflow has no {said}: {why}", _advice(client, model)) from None
    named = tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(found.version)))
    registered = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    own = Version(
        model, int(found.version), named, registered, str(found.tags.get("attune.model", "")), tags=found.tags
    )
    try:
        with quiet():
            run = client.get_run(found.run_id)
    except MlflowException:
        return own
    return Version(
        *(own.name, own.number, own.aliases, own.registered, own.model),
        run=str(run.info.run_id),
        run_name=str(run.info.run_name),
        experiment=str(run.info.experiment_id),
        tags={**run.data.tags, **found.tags},
        params={key: value for key, value in run.data.params.items() if not key.startswith("champion.")},
        metrics=run.data.metrics,
    )


def fetch_making(client: "MlflowClient", version: Version, folder: Path) -> Making | None:
    """Copy what a version keeps of its making into a folder; None: it keeps nothing.

    Raises:
        AttuneError: if it says that it does, and it cannot be had or read.
    """
    from stages.common.tracking.store import quiet

    where = version.tags.get(MAKING_TAG, "")
    if not version.run or not KEPT_AT.fullmatch(where):
        return None
    try:
        with quiet():
            kept = Path(client.download_artifacts(version.run, where, str(folder)))
        lock = YAML(typ="safe", pure=True).load((kept / LOCK).read_text(encoding="utf-8"))["stages"]
        manifest = json.loads((kept / MANIFEST).read_text(encoding="utf-8")) if (kept / MANIFEST).exists() else {}
        return Making(kept, lock, manifest)
    except (OSError, ValueError, KeyError, TypeError, YAMLError) as error:
        raise AttuneError(
            f"what made the version cannot be read: {shown(redacted(str(error)), 160)}", "see its run"
        ) from None
    except Exception as error:
        raise AttuneError(f"MLflow does not give what made the version: {shown(redacted(str(error)), 160)}") from None


def _advice(client: "MlflowClient", model: str) -> str:
    """Return what to ask for instead of a version that is not there."""
    from stages.common.tracking.store import quiet

    with quiet():
        names = [str(one.name) for one in client.search_registered_models()]
    if model in names:
        return "`make champion` lists the versions"
    near = get_close_matches(model, names, n=1)
    told = f"did you mean {shown(near[0], 60)}? " if near else ""
    return f"{told}registered are: {listed([shown(name, 60) for name in sorted(names)], 5)}" if names else "make run"


def _parsed(asked: str, name: str) -> tuple[str, str]:
    asked = asked.removeprefix("models:/")
    if not asked:
        return name, CHAMPION
    if re.fullmatch("[0-9]{1,9}", asked):
        return name, asked
    if number := re.fullmatch("(.+)/([0-9]{1,9})", asked):
        return number[1], number[2]
    model, at, alias = asked.rpartition("@")
    if not at or not alias:
        what = f"{shown(asked, 60)!r} names no version"
        raise AttuneError(what, f"write {name or 'NAME'}@champion, {name or 'NAME'}/3, @champion or 3")
    return model or name, alias
