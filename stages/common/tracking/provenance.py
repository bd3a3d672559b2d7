"""Where a trained model comes from: commit, uncommitted changes, recipe, what each stage read, what a version keeps."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from stages.common.digests import sha256_value
from stages.common.errors import AttuneError
from stages.common.graph import read_graph, read_lock, upstream_of
from stages.common.params import Params, load_params
from stages.common.params.loading import PARAMS_FILE
from stages.common.redact import redacted
from stages.common.shown import listed, shown
from stages.common.stage import WORK
from stages.common.tracking.flat import flatten
from stages.common.tracking.store import quiet, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

COMMIT_TAG = "mlflow.source.git.commit"  # what MLflow's UI shows as the run's source
SHOWN_COMMIT_TAG = "attune.commit"  # the same where the UI hides its own tags: in the compare view
BRANCH_TAG = "mlflow.source.git.branch"
DIRTY_TAG, PATCH_TAG, RECIPE_TAG = "attune.dirty", "attune.patch", "attune.recipe"
STAGE_TAG = "attune.stage."
LINEAGE_TAG = "attune.lineage"  # of a version: the folder among its run's artifacts
# What a model depends on besides data: untracked data and what a run itself writes make no checkout dirty.
PINNED = ("constraints.txt", "requirements.txt", "requirements-dev.txt")
SOURCES = ("stages", "dvc.yaml", "params.yaml", "recipes", *PINNED)
LINEAGE, PATCHES, LOCK = "lineage", WORK / "patches", "dvc.lock"
MANIFEST, SCORES = "data/raw/manifest.json", "reports/metrics.json"
LARGEST_PATCH = 1_000_000  # bytes
RECIPES, CLOSE = Path("recipes"), 5  # settings in which params may differ from a recipe to be called after it
SECONDS = 60


def origin_tags(params: Params) -> dict[str, str]:
    """Return the tags of a training that begins now, in the current folder."""
    graph = read_graph() if Path("dvc.yaml").exists() else {}
    upstream = upstream_of(graph["finetune"], graph) if "finetune" in graph else []
    return {**commit_tags(), RECIPE_TAG: recipe_of(params), **stage_tags(upstream, read_lock())}


def is_origin(tag: str) -> bool:
    """Return whether a tag describes the beginning of a training: it stays as it was first set."""
    return tag.startswith(("mlflow.", STAGE_TAG)) or tag in (SHOWN_COMMIT_TAG, DIRTY_TAG, PATCH_TAG, RECIPE_TAG)


def commit_tags() -> dict[str, str]:
    """Return commit, branch, whether code or configuration differ from the commit, and whether a patch is kept.

    The patch waits in `.attune/patches/` for `log_patch`. Without Git, or before its first commit, there are no tags.
    """
    try:
        commit = _git("rev-parse", "--verify", "HEAD").decode().strip()
        branch = _git("branch", "--show-current").decode("utf-8", "replace").strip()
        found = _git("status", "--porcelain", "--no-renames", "--untracked-files=all", "-z", "--", *SOURCES)
        patch = _git(  # the same whatever a person's settings are
            *("diff", "--binary", "--unified=3", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color"),
            *("--no-relative", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/", "HEAD", "--", *SOURCES),
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    changes = [change.decode("utf-8", "replace") for change in found.split(b"\0") if change]
    tags = {COMMIT_TAG: commit, SHOWN_COMMIT_TAG: commit, **({BRANCH_TAG: branch} if branch else {})}
    new = [change[3:] for change in changes if change.startswith("??")]
    return {**tags, DIRTY_TAG: str(bool(changes)).lower(), PATCH_TAG: _keep_patch(patch, new)}


def _keep_patch(patch: bytes, new: Sequence[str]) -> str:
    """Write a patch to where `log_patch` finds it; return what the run's tag says of it."""
    untracked = f"new files, which Git does not track: {listed([shown(name, 100) for name in new], 3)}"
    if not patch:
        return f"not kept: {untracked}" if new else "none"
    if len(patch) > LARGEST_PATCH:
        return f"not kept: {len(patch):,} bytes are more than {LARGEST_PATCH:,}"
    text = patch.decode(errors="replace")
    if redacted(text) != text:  # it would go to a registry that others read
        return "not kept: a line of it looks like a key, a token or a login"
    name = sha256(patch).hexdigest()[:12]
    PATCHES.mkdir(parents=True, exist_ok=True)
    (PATCHES / f"{name}.patch").write_bytes(patch)
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


def recipe_of(params: Params, folder: Path = RECIPES) -> str:
    """Return the recipe that params are: its name, with up to five settings that differ; `none` if it is more."""
    mine = _settings(params)
    found: list[tuple[int, str, list[str]]] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            other = _settings(load_params(path))
        except AttuneError:
            continue
        keys = [key for key in {**mine, **other} if mine.get(key, "") != other.get(key, "")]
        found.append((len(keys), path.stem, keys))
    count, name, keys = min(found, default=(CLOSE + 1, "", []))
    if count > CLOSE:
        return "none"
    return f"{name}, but {', '.join(keys)}" if keys else name


def _settings(params: Params) -> dict[str, Any]:
    """Return all that a stage reads, by dotted name."""
    return dict(flatten(params.model_dump(mode="json", by_alias=True, exclude={"tracking", "tune", "review"})))


def stage_tags(stages: Iterable[str], lock: Mapping[str, Any]) -> dict[str, str]:
    """Return a short digest of what each of the stages read (command, code, data, params), as `dvc.lock` has it.

    Runs part at the first stage whose digests differ.
    """
    return {f"{STAGE_TAG}{name}": _digest(lock[name]) for name in stages if name in lock}


def _digest(entry: Mapping[str, Any]) -> str:
    deps = sorted((dep["path"], str(dep.get("md5") or dep.get("hash") or "")) for dep in entry.get("deps", []))
    read = [entry.get("cmd"), deps, json.loads(json.dumps(entry.get("params", {}), default=str))]
    return sha256_value(read)[:10]  # enough to tell runs apart, few enough to compare by eye


def keep_lineage(
    client: "MlflowClient", name: str, version: int, run_id: str, model: str, package: str, reports: Mapping[str, Path]
) -> None:
    """Keep `dvc.lock`, params and reports with a registered version, once; whatever goes wrong is a warning.

    With other thresholds, the same weights are another version of the same run, so each version has its own folder.
    Nothing is kept where `dvc.lock` is of another model.

    Args:
        client: of a store that answers.
        name: of the registered model.
        version: its number.
        run_id: of its run.
        model: digest of its weights.
        package: digest of all its parts.
        reports: of the run, by path; staged ones may stand elsewhere.
    """
    try:
        with quiet(), TemporaryDirectory() as folder:
            if LINEAGE_TAG in client.get_model_version(name, str(version)).tags or not _made(model, reports):
                return
            inputs = {path: Path(path) for path in (MANIFEST, LOCK) if Path(path).exists()}
            files = {path: file.read_bytes() for path, file in {**reports, **inputs}.items()}
            for path, content in {**files, str(PARAMS_FILE): params_of(read_lock())}.items():
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_bytes(content)
            where = f"{LINEAGE}/{package[:12]}"
            client.log_artifacts(run_id, folder, where)
            client.set_model_version_tag(name, str(version), LINEAGE_TAG, where)  # says that all is there
    except Exception as error:
        warn(error, "the version is registered, without its lineage; `make publish` adds that")


def _made(model: str, reports: Mapping[str, Path]) -> bool:
    """Say whether `dvc.lock` is of one run, which made this model: what a stage read is what those before it wrote."""
    graph, lock = read_graph(), read_lock()
    stages = [lock[name] for name in upstream_of(graph["register"], graph) if name in lock]
    scores = json.loads(reports[SCORES].read_text(encoding="utf-8")) if SCORES in reports else {}
    outs = {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", [])}
    deps = [(dep["path"], dep.get("md5")) for stage in stages for dep in stage.get("deps", [])]
    fits = all(outs.get(path, md5) == md5 for path, md5 in deps)
    return bool(stages) and fits and scores.get("model", {}).get("digest") == model


def params_of(lock: Mapping[str, Any]) -> bytes:
    """Return params.yaml as the stages before `register` had it: the file as it is, where it still says the same."""
    text, yaml, out = PARAMS_FILE.read_bytes(), YAML(), BytesIO()
    current = yaml.load(text) or {}
    recorded = [stage.get("params", {}).get("params.yaml", {}) for name, stage in lock.items() if name != "register"]
    changed = {key: value for one in recorded for key, value in one.items() if current.get(key) != value}
    current.update(changed)
    yaml.dump(current, out)
    return out.getvalue() if changed else text


def _git(*arguments: str) -> bytes:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, timeout=SECONDS, check=True).stdout
