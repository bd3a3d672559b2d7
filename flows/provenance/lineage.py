"""Where the model of a revision comes from, for a review: what was read, and where MLflow has it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flows.reviewing.findings import Lineage
from flows.reviewing.revision import Revision
from flows.told.deadline import within
from stages.common.shown import shown
from stages.common.tracking.provenance import MANIFEST, SCORES
from stages.common.tracking.runs import MODEL_TAG
from stages.common.tracking.store import client_of, quiet, without_password

SECONDS = 8.0  # MLflow takes up to three of them to import
SPLITS = tuple(f"data/clean/{name}.parquet" for name in ("train", "validation", "test"))
DIGEST = re.compile("[0-9a-f]{64}")
Places = tuple[str | None, tuple[tuple[str, int, str], ...]]


def lineage_of(head: Revision, tracking: str | None) -> Lineage:
    """Return where a revision's model comes from; MLflow is only read, for seconds at most.

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
            problem = f"MLflow could not be asked: {reason_of(error)}"
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
    hashes = sorted((base.get("sha256") or {}).items())
    return str(base.get("origin", "")), ", ".join(str(hash_) for name, hash_ in hashes if name.endswith(".safetensors"))


def _places(tracking: str, model: str) -> Places:
    """Return the run of a model, and the registered versions that are it, each with its aliases."""
    check_there(tracking)
    with quiet():
        client = client_of(tracking)
        same = f"tags.`{MODEL_TAG}` = '{model}'"
        versions = client.search_model_versions(same)
        aliases = {name: client.get_registered_model(name).aliases for name in {one.name for one in versions}}
        everywhere = [one.experiment_id for one in client.search_experiments()]
        runs = client.search_runs(everywhere, filter_string=same, max_results=1)
    named = ((one, aliases_of(aliases[one.name], one.version)) for one in versions)
    registered = sorted((str(one.name), int(one.version), ", ".join(names)) for one, names in named)
    return str(runs[0].info.run_id) if runs else None, tuple(registered)


def aliases_of(aliases: Mapping[str, Any], version: Any) -> list[str]:
    """Return the aliases that name a version, of all of its registered model."""
    return sorted(alias for alias, number in aliases.items() if str(number) == str(version))


def check_there(tracking: str) -> None:
    """Make sure that asking creates nothing: MLflow makes a SQLite file or folders where there are none.

    Raises:
        FileNotFoundError: if there is no such store.
    """
    parts = urlsplit(tracking)
    if parts.scheme.partition("+")[0] == "sqlite":
        file = Path(parts.path.removeprefix("/"))
        there = file.is_file() and file.stat().st_size > 0
    else:
        path = parts.scheme in ("", "file") and tracking not in ("databricks", "uc")
        there = not path or Path(unquote(parts.path)).is_dir()
    if not there:
        raise FileNotFoundError("there is no store yet: nothing was trained or published here")


def reason_of(error: Exception) -> str:
    """Return the first line of an error of MLflow's, without the password of its address."""
    return shown(without_password(str(error).partition("\n")[0]) or type(error).__name__, 200)
