"""What a registered version keeps of its making, so that it can be had again: lock, params, reports, patch.

It stands among the artifacts of the version's run, in a folder named after the digest of all the model's parts: with
other thresholds, the same weights are another version of the same run.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from stages.common.graph import Node, read_graph, read_lock, upstream_of
from stages.common.params.loading import PARAMS_FILE
from stages.common.shown import listed, shown
from stages.common.tracking.checkout import (
    COMMIT_TAG,
    DIRTY_TAG,
    SHOWN_COMMIT_TAG,
    SOURCES_TAG,
    Difference,
    difference_from,
    is_secret,
)
from stages.common.tracking.origin import CODE, of_one_run, sources_of_training
from stages.common.tracking.runs import MODEL_TAG
from stages.common.tracking.store import quiet, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAKING_TAG = "attune.lineage"  # of a version: the folder among its run's artifacts
PATCH_TAG = "attune.patch"  # of a version: none, kept, or why there is none
FOLDER, LOCK, PATCH = "lineage", "dvc.lock", "uncommitted.patch"
MANIFEST, SCORES = "data/raw/manifest.json", "reports/metrics.json"
MOST = 1_000_000  # bytes of a patch
# Shapes of keys and tokens that nobody writes by chance: a patch that adds one is not handed to a registry.
KEYS = re.compile(
    rb"^\+.*(?:-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
    rb"|(?<![A-Za-z0-9])(?:gh[pousr]_|hf_|github_pat_|glpat-)[\w-]{20}"
    rb"|(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}|(?<![A-Za-z0-9])xox[a-z]-[\w-]{8}"
    rb"|(?i:password|passwd|secret|api_?key|access_?key|auth_?token)[\"']?[ \t]{0,3}[:=]"
    rb"[ \t]{0,3}[\"'][^\"'\s]{8,}[\"']"
    rb"|://[^\s/:@\"']{0,80}:[^\s/:@\"'{}$]{3,80}@)",
    re.MULTILINE,
)


def keep_making(
    client: "MlflowClient", name: str, version: int, run_id: str, package: str, reports: Mapping[str, Path]
) -> None:
    """Keep what made a version with it, unless that was done before; whatever goes wrong with it is a warning.

    Nothing is kept where `dvc.lock` is of another model than the version, so a later edit falsifies nothing.

    Args:
        client: of a store that answers.
        name: of the registered model.
        version: its number.
        run_id: of its run.
        package: digest of all its parts.
        reports: of the run, by path; staged ones may stand elsewhere.
    """
    try:
        with quiet():
            tags = client.get_model_version(name, str(version)).tags
            if MAKING_TAG in tags or not Path(LOCK).exists():
                return
            run = client.get_run(run_id).data.tags
            made = _made(str(tags.get(MODEL_TAG)), run, reports)
            if made is None:
                return
            files, patch = made
            where = f"{FOLDER}/{package[:12]}"
            with tempfile.TemporaryDirectory() as folder:
                for path, content in files.items():
                    (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                    (Path(folder) / path).write_bytes(content)
                client.log_artifacts(run_id, folder, where)
            commit = {SHOWN_COMMIT_TAG: run[COMMIT_TAG], PATCH_TAG: patch} if COMMIT_TAG in run else {}
            for key, value in {**commit, MAKING_TAG: where}.items():  # the last says that all is there
                client.set_model_version_tag(name, str(version), key, value)
    except Exception as error:
        warn(error, "the version is registered, without what made it; `make publish` adds that")


def _made(model: str, run: Mapping[str, str], reports: Mapping[str, Path]) -> tuple[dict[str, bytes], str] | None:
    """Return the files to keep, by path, and what to say of the patch; None: the lock is not of this model."""
    graph = read_graph()
    kept = of_one_run(read_lock(), graph)
    registers = graph.get("register")
    upstream = upstream_of(registers, graph) if registers else list(graph)
    lock = {stage: kept[stage] for stage in upstream if stage in kept}
    locked = {out["path"]: out.get("md5") for entry in lock.values() for out in entry.get("outs", [])}
    files = {path: file.read_bytes() for path, file in reports.items()}
    if Path(MANIFEST).exists():
        files[MANIFEST] = Path(MANIFEST).read_bytes()
    outs = {out for name in upstream for out in graph[name].outs}
    whole = {path: content for path, content in files.items() if path not in outs or _md5(content) == locked.get(path)}
    if SCORES not in whole or json.loads(whole[SCORES]).get("model", {}).get("digest") != model:
        return None
    patch, said = _patch(run, lock, graph)
    texts = {LOCK: _yaml({"schema": "2.0", "stages": lock}), str(PARAMS_FILE): params_of(lock)}
    return {**whole, **{path: text.encode() for path, text in texts.items()}, **patch}, said


def params_of(lock: Mapping[str, Any], now: str | None = None) -> str:
    """Return the text of params.yaml as the stages of a lock had it: as it is, where it still says the same.

    Args:
        lock: stages of a `dvc.lock`.
        now: text of a params.yaml, for what no stage has recorded; None: of the one here.
    """
    text = PARAMS_FILE.read_text(encoding="utf-8") if now is None else now
    said = YAML(typ="safe", pure=True).load(text) or {}
    recorded = {
        key: value for one in lock.values() for key, value in one.get("params", {}).get("params.yaml", {}).items()
    }
    return text if all(said.get(key) == value for key, value in recorded.items()) else _yaml({**said, **recorded})


def _patch(run: Mapping[str, str], lock: Mapping[str, Any], graph: Mapping[str, Node]) -> tuple[dict[str, bytes], str]:
    """Return what the commit lacked of the code and configuration that made the model, and what to say of it.

    What is kept is as the training had it: the files are still those that it began with, and `dvc.lock` has them.
    """
    commit, dirty = run.get(COMMIT_TAG), run.get(DIRTY_TAG)
    if not commit:
        return {}, ""
    code = sorted({dep["path"] for one in lock.values() for dep in one.get("deps", []) if _is_code(dep["path"])})
    found = difference_from(commit)
    if found is None:
        return {}, "not kept: Git has the commit no more"
    if dirty == "false" and (not found.patch or _same(commit, code) or _moved(list(lock))):
        return {}, "none"
    why = _against(found, run, lock, graph)
    if why:
        return {}, f"not kept: {why}"[:500]
    others = [path for path in found.left_out if not is_secret(path)]
    if not found.patch and others:
        return {}, f"not kept: {_named(others)}: new, and of no kind that code has"[:500]
    if not found.patch:  # the files are those that the training began with, and its params are kept by themselves
        return {}, "kept: params.yaml alone was another"
    but = f", but for {_named(found.left_out)}" if found.left_out else ""
    return {PATCH: found.patch}, f"kept{but}"[:500]


def _against(found: Difference, run: Mapping[str, str], lock: Mapping[str, Any], graph: Mapping[str, Node]) -> str:
    """Return why a difference is not kept, or nothing."""
    if moved := _moved(list(lock)):
        return f"changed since the training: {', '.join(moved)}"
    if SOURCES_TAG not in run:
        return "nobody noted what the code was when the training began"
    if run[SOURCES_TAG] != sources_of_training(run[COMMIT_TAG], graph):
        return "code or configuration changed since the training began, or was put back"
    if found.repositories:
        return f"{_named(found.repositories)} is a Git repository of its own"
    if KEYS.search(found.patch):
        return "a line of it looks like a password or a key"
    return f"{len(found.patch):,} bytes are more than {MOST:,}" if len(found.patch) > MOST else ""


def _same(commit: str, code: Sequence[str]) -> bool:
    """Say whether code is as in a commit."""
    found = difference_from(commit, code)
    return found is not None and found == Difference(b"")


def _named(paths: Sequence[str]) -> str:
    return listed([shown(path, 100) for path in paths], 3)


def _moved(stages: Sequence[str]) -> list[str]:
    """Return the code that is no longer what `dvc.lock` says the stages ran with."""
    from stages.common.recorded import changes

    found = changes(list(stages), outs=False)
    return list(dict.fromkeys(one.what for name in stages for one in found[name] if one.kind == "code"))


def _is_code(path: str) -> bool:
    return Path(path).parts[0] == CODE


def _yaml(value: Any) -> str:
    out, yaml = StringIO(), YAML()
    yaml.default_flow_style = False
    yaml.width = 1_000_000  # no line is broken: DVC reads what was written
    yaml.representer.ignore_aliases = lambda *_: True
    yaml.dump(value, out)
    return out.getvalue()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()  # the hash that DVC knows files by
