"""Where the model of a revision comes from, for a review: what was read, and where MLflow has it."""

import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from flows.reviewing.findings import Lineage
from flows.reviewing.revision import Revision
from flows.told.deadline import within
from stages.common.redact import redacted
from stages.common.shown import shown
from stages.common.tracking.making import MANIFEST, SCORES
from stages.common.tracking.runs import MODEL_TAG
from stages.common.tracking.store import client_of, quiet, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = 8.0  # MLflow takes up to three of them to import
SPLITS = tuple(f"data/clean/{name}.parquet" for name in ("train", "validation", "test"))
WEIGHTS = (".safetensors",)
DIGEST = re.compile("[0-9a-f]{64}")
NOTHING = "there is no store yet: nothing was trained or published here"
Places = tuple[str | None, tuple[tuple[str, int, str], ...]]


class NoStore(OSError):
    """There is no store where one is to be asked."""


def lineage_of(head: Revision, tracking: str | None) -> Lineage:
    """Return where a revision's model comes from; MLflow is only read, and asked for seconds.

    Args:
        head: a revision with its results.
        tracking: address of the project's MLflow store; None: it is not asked.
    """
    manifest, locked = head.report(MANIFEST), head.hashes("clean", "outs")
    model = str((head.report(SCORES).get("model") or {}).get("digest") or "")
    places: Places = (None, ())
    problem = ""
    if tracking and DIGEST.fullmatch(model):
        try:
            places = within(SECONDS, lambda: _places(tracking, model))
        except Exception as error:  # of whatever kind: a review does without
            told = str(error).partition("\n")[0] or type(error).__name__
            problem = f"MLflow could not be asked: {shown(without_password(redacted(told)), 200)}"
    return Lineage(
        commit=head.commit,
        subject=head.subject,
        data=(*sources_of(manifest), *((path, locked[path]) for path in SPLITS if path in locked)),
        base_model=base_model_of(manifest),
        model=model,
        run=places[0],
        versions=places[1],
        problem=problem,
    )


def sources_of(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return (origin, SHA-256) of each source that `ingest` read."""
    return tuple((str(one.get("origin", "")), str(one.get("sha256", ""))) for one in manifest.get("sources") or [])


def base_model_of(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return (origin, SHA-256 of the weights) of the base model; several files of weights, a digest each."""
    base = manifest.get("base_model") or {}
    hashes = base.get("sha256") or {}
    weights = [str(found) for name, found in sorted(hashes.items()) if str(name).endswith(WEIGHTS)]
    return str(base.get("origin", "")), ", ".join(weights)


def _places(tracking: str, model: str) -> Places:
    """Return the run of a model, and the registered versions that are it."""
    check_there(tracking)
    with quiet():
        client = client_of(tracking)
        found = client.search_model_versions(f"tags.`{MODEL_TAG}` = '{model}'")
        aliases = {name: client.get_registered_model(name).aliases for name in {one.name for one in found}}
        versions = sorted((str(one.name), int(one.version), _alias(aliases[one.name], one.version)) for one in found)
        return _run(client, model), tuple(versions)


def _run(client: "MlflowClient", model: str) -> str | None:
    everywhere = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(everywhere, filter_string=f"tags.`{MODEL_TAG}` = '{model}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _alias(aliases: Mapping[str, Any], version: Any) -> str:
    return ", ".join(sorted(alias for alias, number in aliases.items() if str(number) == str(version)))


def check_there(tracking: str) -> None:
    """Make sure that asking creates nothing: MLflow makes a SQLite file, its tables, or folders, where there are none.

    Raises:
        NoStore: if there is no such store.
    """
    scheme, parted, rest = tracking.partition("://")
    if not parted or scheme == "file":
        folder = Path(unquote(urlsplit(tracking).path) if scheme.startswith("file") else tracking)
        if not parted and ":" in tracking and not tracking.startswith("file:"):
            return  # `databricks:profile`: no path
        if not folder.is_dir() and tracking not in ("databricks", "uc"):
            raise NoStore(NOTHING)
        return
    if scheme.partition("+")[0] != "sqlite":
        return
    file = Path(rest.removeprefix("/").partition("?")[0])
    if not file.is_file():
        raise NoStore(NOTHING)
    store = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=2)
    try:
        store.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        raise NoStore(f"{shown(file.name, 120)} is no store of MLflow") from None
    finally:
        store.close()
