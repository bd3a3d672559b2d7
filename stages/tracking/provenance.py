"""Where a trained model comes from: commit, uncommitted changes, what each stage read, what a version keeps."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from stages.common.digests import sha256_value
from stages.common.display import display, listed
from stages.common.git import GitFailed, NoGit, git
from stages.common.params import PARAMS_FILE
from stages.common.pipeline.graph import read_graph, read_lock, upstream_of
from stages.common.pipeline.stage import WORK
from stages.common.redact import redacted
from stages.tracking.store import warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

COMMIT_TAG = "mlflow.source.git.commit"  # what MLflow's UI shows as the run's source
SHOWN_COMMIT_TAG = "attune.commit"  # the same where the UI hides its own tags: in the compare view
BRANCH_TAG = "mlflow.source.git.branch"
DIRTY_TAG, PATCH_TAG = "attune.dirty", "attune.patch"
STAGE_TAG = "attune.stage."
LINEAGE_TAG = "attune.lineage"  # of a version: the folder among its run's artifacts
# What a model depends on besides data: untracked data and what a run itself writes make no checkout dirty.
PINNED = ("constraints.txt", "requirements.txt", "requirements-dev.txt")
SOURCES = ("stages", "dvc.yaml", "params.yaml", "recipes", *PINNED)
LINEAGE, PATCHES, LOCK = "lineage", WORK / "patches", "dvc.lock"
MANIFEST, SCORES = "data/raw/manifest.json", "reports/scores.json"
REGISTERS = "register"
LARGEST_PATCH = 1_000_000  # bytes


def origin_tags() -> dict[str, str]:
    """Return the tags of a training that begins now, in the current folder."""
    graph = read_graph()
    return {**commit_tags(), **stage_tags(upstream_of(graph["finetune"], graph), read_lock())}


def commit_tags() -> dict[str, str]:
    """Return commit, branch, whether code or configuration differ from the commit, and whether a patch is kept.

    The patch waits in `.attune/patches/` for `log_patch`. Without Git, or before its first commit, there are no tags;
    if Git is there but fails, that is a warning in its own words.
    """
    try:
        commit, branch = git(Path(), "log", "-1", "--format=%H"), git(Path(), "branch", "--show-current")
        untracked = git(Path(), "ls-files", "--others", "--exclude-standard", "-z", "--", *SOURCES)
        plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/")
        patch = git(Path(), "diff", "--binary", *plain, "HEAD", "--", *SOURCES)  # whatever a person's settings are
    except NoGit:
        return {}
    except GitFailed as error:
        _say_once(f"  warning: Git fails, so the run in MLflow will not name its commit: {error.what}")
        return {}
    new = [display(name, 100, None) for name in untracked.split("\0") if name]
    tags = {COMMIT_TAG: commit, SHOWN_COMMIT_TAG: commit, **({BRANCH_TAG: branch} if branch else {})}
    return {**tags, DIRTY_TAG: str(bool(patch or new)).lower(), PATCH_TAG: _keep_patch(patch, new)}


@cache
def _say_once(warning: str) -> None:
    print(warning, file=sys.stderr, flush=True)


def _keep_patch(patch: str, new: list[str]) -> str:
    """Write a patch to where `log_patch` finds it; return what the run's tag says of it."""
    untracked = f"new files, which Git does not track: {listed(new, 3)}"
    if not patch:
        return f"not kept: {untracked}" if new else "none"
    content = f"{patch}\n".encode(errors="surrogateescape")
    if len(content) > LARGEST_PATCH:
        return f"not kept: {len(content):,} bytes are more than {LARGEST_PATCH:,}"
    if redacted(patch) != patch:  # it would go to a registry that others read
        return "not kept: a line of it looks like a key, a token or a login"
    name = sha256(content).hexdigest()[:12]
    PATCHES.mkdir(parents=True, exist_ok=True)
    (PATCHES / f"{name}.patch").write_bytes(content)
    return f"kept as {name}" + (f", without {untracked}" if new else "")


def patch_artifact(tag: str) -> str:
    """Return the artifact of a run that its patch tag names, or nothing."""
    kept = re.match("kept as ([0-9a-f]{12})", tag)
    return f"{LINEAGE}/{kept[1]}.patch" if kept else ""


def log_patch(client: "MlflowClient", run_id: str, tag: str) -> None:
    """Make the patch that a run's tag names an artifact of the run, if it was written here."""
    file = PATCHES / Path(patch_artifact(tag)).name
    if file.is_file():
        client.log_artifact(run_id, str(file), LINEAGE)


def stage_tags(stages: Iterable[str], lock: Mapping[str, Any]) -> dict[str, str]:
    """Return a short digest of what each of the stages read (command, code, data, params), as `dvc.lock` has it.

    The first stage whose digests differ is where two runs begin to differ.
    """
    tags = {}
    for name in stages:
        if entry := lock.get(name):
            deps = sorted((dep["path"], str(dep.get("md5") or dep.get("hash") or "")) for dep in entry.get("deps", []))
            inputs = [entry.get("cmd"), deps, json.loads(json.dumps(entry.get("params", {}), default=str))]
            tags[f"{STAGE_TAG}{name}"] = sha256_value(inputs)[:10]  # enough to tell apart, short enough to read
    return tags


def stages_that_made(model: str, reports: Mapping[str, Path]) -> list[str]:
    """Return the stages before `register`, if `dvc.lock` is of one run, and that made this model (a digest); else none.

    It is not where a run was cut short, or where models and reports were fetched from elsewhere.
    """
    graph, lock = read_graph(), read_lock()
    stages = upstream_of(graph[REGISTERS], graph) if REGISTERS in graph else []
    scores = json.loads(reports[SCORES].read_text(encoding="utf-8")) if SCORES in reports else {}
    recorded = [lock[name] for name in stages if name in lock]
    outs = {out["path"]: out.get("md5") for stage in recorded for out in stage.get("outs", [])}
    deps = [(dep["path"], dep.get("md5")) for stage in recorded for dep in stage.get("deps", [])]
    one_run = all(outs.get(path, md5) == md5 for path, md5 in deps)  # each stage read what those before it wrote
    return stages if one_run and scores.get("model", {}).get("digest") == model else []


def keep_lineage(client: "MlflowClient", name: str, version: int, model: str, reports: Mapping[str, Path]) -> None:
    """Keep `dvc.lock`, params and reports with a registered version, once; whatever goes wrong is a warning.

    With other thresholds, the same weights are another version of the same run, so each version has its own folder.
    Reports come by path, since staged ones stand elsewhere.
    """
    try:
        registered = client.get_model_version(name, str(version))
        if LINEAGE_TAG in registered.tags or not stages_that_made(model, reports):
            return
        files = {**reports, MANIFEST: Path(MANIFEST), LOCK: Path(LOCK)}
        contents = {path: file.read_bytes() for path, file in files.items() if file.exists()}
        with TemporaryDirectory() as folder:
            for path, content in {**contents, str(PARAMS_FILE): recorded_params()}.items():
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_bytes(content)
            artifact = f"{LINEAGE}/{name}-{version}"
            client.log_artifacts(registered.run_id, folder, artifact)
            client.set_model_version_tag(name, str(version), LINEAGE_TAG, artifact)  # last: it says that all is kept
    except Exception as error:
        warn(error, "the version is registered, without its lineage; `make publish` adds that")


def recorded_params() -> bytes:
    """Return params.yaml as the stages before `register` had it: the file as it is, where it still says the same."""
    text, yaml, out = PARAMS_FILE.read_bytes(), YAML(), BytesIO()
    params = yaml.load(text) or {}
    changed: dict[str, Any] = {}
    for name, stage in read_lock().items():
        if name != REGISTERS:
            recorded = stage.get("params", {}).get("params.yaml", {})
            changed |= {key: value for key, value in recorded.items() if params.get(key) != value}
    if not changed:
        return text
    params.update(changed)
    yaml.dump(params, out)
    return out.getvalue()
