"""Where the model of a revision comes from, for a review: what was read, and where MLflow has it."""

from collections.abc import Mapping
from typing import Any

from flows.model_versions.versions import DIGEST, aliases_of, check_there, reason_of, run_of
from flows.reporting.timeouts import within
from flows.reviewing.findings import Lineage
from flows.reviewing.revision import Revision
from stages.tracking.provenance import MANIFEST, SCORES
from stages.tracking.runs import MODEL_TAG
from stages.tracking.store import client_of

SECONDS = 8.0  # MLflow takes up to three of them to import
SPLITS = tuple(f"data/clean/{name}.parquet" for name in ("train", "validation", "test"))
Places = tuple[str | None, tuple[tuple[str, int, str], ...]]


def lineage_of(head: Revision, tracking: str | None) -> Lineage:
    """Return where a revision's model comes from; MLflow (None: not asked) is only read, for seconds at most."""
    manifest, locked = head.report(MANIFEST), head.hashes("clean", "outs")
    sources = [(str(one.get("origin", "")), str(one.get("sha256", ""))) for one in manifest.get("sources") or []]
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
        data=(*sources, *((path, locked[path]) for path in SPLITS if path in locked)),
        base_model=base_model_of(manifest),
        model=model,
        run=places[0],
        versions=places[1],
        problem=problem,
    )


def base_model_of(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return (origin, SHA-256 of the weights) of the base model; several files of weights, a digest each."""
    base = manifest.get("base_model") or {}
    hashes = sorted((base.get("sha256") or {}).items())
    return str(base.get("origin", "")), ", ".join(str(hash_) for name, hash_ in hashes if name.endswith(".safetensors"))


def _places(tracking: str, model: str) -> Places:
    """Return the run of a model, and the registered versions that are it, each with its aliases."""
    check_there(tracking)
    client = client_of(tracking)
    same = client.search_model_versions(f"tags.`{MODEL_TAG}` = '{model}'")
    found = [(one.name, int(one.version)) for one in same]
    aliases = {name: client.get_registered_model(name).aliases for name, _ in found}
    run = run_of(client, model)
    versions = sorted((name, number, ", ".join(aliases_of(aliases[name], number))) for name, number in found)
    return str(run.info.run_id) if run else None, tuple(versions)
