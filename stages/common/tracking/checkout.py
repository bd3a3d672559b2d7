"""The Git checkout that a model is trained in: its commit, and how the files differ from it. Only ever reads."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

COMMIT_TAG = "mlflow.source.git.commit"  # what MLflow's UI shows as the run's source
SHOWN_COMMIT_TAG = "attune.commit"  # the same where the UI hides its own tags: in the compare view
BRANCH_TAG = "mlflow.source.git.branch"
DIRTY_TAG = "attune.dirty"
# What a model depends on besides data: untracked data and what a run itself writes make no checkout dirty.
SOURCES = (
    *("stages", "dvc.yaml", "params.yaml", "recipes"),
    *("constraints.txt", "requirements.txt", "requirements-dev.txt"),
)
OF_A_CALLER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
SECONDS = 60


def commit_tags() -> dict[str, str]:
    """Return the tags that say which commit is checked out and whether code or configuration differ from it.

    Without Git, or before its first commit, there are none.
    """
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return {}
    tags = {COMMIT_TAG: _text(commit), SHOWN_COMMIT_TAG: _text(commit)}
    changes = _git("status", "--porcelain", "--", *SOURCES)
    if changes is not None:
        tags[DIRTY_TAG] = str(bool(changes)).lower()
    branch = _git("symbolic-ref", "--short", "--quiet", "HEAD")
    return tags | ({BRANCH_TAG: _text(branch)} if branch else {})


def patch_since(commit: str, paths: Sequence[str] = SOURCES) -> bytes | None:
    """Return how files differ from a commit, as `git apply` takes it; new files count, ignored ones do not.

    The same files give the same bytes, whatever a person's Git settings are. The index is a temporary one, and so is
    the folder of the objects that it needs.

    Args:
        commit: full hash.
        paths: files and folders of the project.

    Returns:
        None where this clone does not have the commit, or Git fails.
    """
    objects = _git("rev-parse", "--git-path", "objects")
    if objects is None:
        return None
    with TemporaryDirectory() as folder:
        quoted = str(Path(_text(objects)).resolve()).replace("\\", "\\\\").replace('"', '\\"')
        own = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
        }
        if _git("read-tree", commit, **own) is None:
            return None
        known = _git("ls-files", "-z", "--", *paths, **own) or b""
        there = [path for path in paths if Path(path).exists() or _holds(known, path)]
        if there and _git("add", "--all", "--", *there, **own) is None:
            return None
        how = ("--cached", "--patch", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv")
        return _git("diff-index", *how, commit, "--", *paths, **own)


def _holds(listed: bytes, path: str) -> bool:
    return any(one == path.encode() or one.startswith(f"{path}/".encode()) for one in listed.split(b"\0"))


def _git(*arguments: str, **environment: str) -> bytes | None:
    """Return what a git command prints; None if it fails or there is no Git here."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_CALLER}
    try:
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **environment},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip()
