"""The results of a scheduled run: a commit of `dvc.lock` and `reports/` beside all branches of people.

`refs/attune/NAME` points at it, and the next run starts from it. That is always correct: a lock records which inputs
gave which outs. On request, the branch `attune/NAME` points at it, too.
"""

import re
from pathlib import Path

from stages.common.git import NETWORK_SECONDS, git, object_at

KEPT = ("dvc.lock", "reports", "params.yaml")
ATTUNE = ("-c", "user.name=Attune", "-c", "user.email=attune@localhost")


def reference(name: str) -> str:
    """Return where results of this name are: `refs/attune/nightly`."""
    return f"refs/attune/{re.sub('[^A-Za-z0-9]+', '-', name).strip('-') or 'retrain'}"


def recall(folder: Path, name: str) -> str:
    """Take over `dvc.lock` and `reports/` of the last results if they began from the `dvc.lock` of this commit.

    Returns:
        The commit they were taken from, or nothing.
    """
    commit, base = object_at(folder, reference(name)), object_at(folder, "HEAD:dvc.lock")
    lock = object_at(folder, f"{commit}:dvc.lock") if commit else ""
    if not lock or lock == base or object_at(folder, f"{commit}^:dvc.lock") != base:
        return ""
    paths = [path for path in KEPT[:2] if object_at(folder, f"{commit}:{path}")]
    git(folder, "restore", f"--source={commit}", "--worktree", "--", *paths)
    return commit


def keep(folder: Path, name: str, message: str, *, branch: bool = False) -> str:
    """Make a commit of the results on top of the run's commit, and point `refs/attune/NAME` (and the branch) at it.

    Hooks do not run, and HEAD does not move.

    Returns:
        The commit, or nothing if the results are those of the run's commit.

    Raises:
        GitFailed: if the branch is checked out somewhere; the results are kept all the same.
    """
    paths = [path for path in KEPT if (folder / path).exists() or object_at(folder, f"HEAD:{path}")]
    git(folder, "add", "--all", "--", *paths)
    tree, base, ref = git(folder, "write-tree"), git(folder, "rev-parse", "HEAD"), reference(name)
    if tree == object_at(folder, "HEAD^{tree}"):
        return ""
    commit = object_at(folder, ref)
    if object_at(folder, f"{ref}^{{tree}}") != tree or object_at(folder, f"{ref}^") != base:
        commit = git(folder, *ATTUNE, "commit-tree", tree, "-p", base, "-m", message)
        git(folder, "update-ref", "--create-reflog", ref, commit)
    if branch:
        git(folder, "branch", "--quiet", "--force", "--no-track", ref.removeprefix("refs/"), commit)
    return commit


def push_results(folder: Path, name: str, *, branch: bool = False) -> None:
    """Send the results to origin: their reference, and the branch if there is one.

    Raises:
        GitFailed: if origin does not take them, or has commits of somebody else in the branch.
    """
    refspecs = [f"+{reference(name)}:{reference(name)}"]
    if branch:  # without a "+", which would undo the lease
        head = reference(name).replace("refs/", "refs/heads/", 1)
        refspecs.append(f"{head}:{head}")
    options = ("--quiet", "--force-with-lease", "--force-if-includes")
    git(folder, "push", *options, "--", "origin", *refspecs, seconds=NETWORK_SECONDS)
