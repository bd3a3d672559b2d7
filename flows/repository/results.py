"""What a scheduled run leaves behind: a commit of `dvc.lock` and `reports/` that no branch of a person's points at.

It stands in `refs/attune/NAME`, and the next run starts from it: a lock records which inputs gave which outs, so it is
sound whoever starts from it. The branch `attune/NAME` points at it, too, where that is asked for.
"""

import re
from pathlib import Path

from flows.repository.git import NETWORK_SECONDS, git, object_at

KEPT = ("dvc.lock", "reports", "params.yaml")
ATTUNE = ("-c", "user.name=Attune", "-c", "user.email=attune@localhost")


def reference(name: str) -> str:
    """Return where results of this name are: `refs/attune/nightly`."""
    return f"refs/attune/{re.sub('[^A-Za-z0-9]+', '-', name).strip('-') or 'retrain'}"


def recall(folder: Path, name: str) -> str:
    """Take over `dvc.lock` and `reports/` of the last result if it began from the same `dvc.lock` as this commit's.

    Returns:
        The commit they were taken from, or nothing.
    """
    commit, base = object_at(folder, reference(name)), object_at(folder, "HEAD:dvc.lock")
    lock = object_at(folder, f"{commit}:dvc.lock") if commit else ""
    if not lock or lock == base or object_at(folder, f"{commit}^:dvc.lock") != base:
        return ""
    there = [path for path in KEPT[:2] if object_at(folder, f"{commit}:{path}")]
    git(folder, "restore", f"--source={commit}", "--worktree", "--", *there)
    return commit


def keep(folder: Path, name: str, message: str, *, branch: bool = False) -> str:
    """Make a commit of the results on top of the run's commit, and point `refs/attune/NAME` (and the branch) at it.

    Hooks do not run, and HEAD does not move.

    Returns:
        The commit, or nothing if the results are those of the run's commit.

    Raises:
        GitFailed: if the branch is checked out somewhere; the results are kept all the same.
    """
    there = [path for path in KEPT if (folder / path).exists() or object_at(folder, f"HEAD:{path}")]
    git(folder, "add", "--all", "--", *there)
    tree, base, where = git(folder, "write-tree"), git(folder, "rev-parse", "HEAD"), reference(name)
    if tree == object_at(folder, "HEAD^{tree}"):
        return ""
    commit = object_at(folder, where)
    if object_at(folder, f"{where}^{{tree}}") != tree or object_at(folder, f"{where}^") != base:
        commit = git(folder, *ATTUNE, "commit-tree", tree, "-p", base, "-m", message)
        git(folder, "update-ref", "--create-reflog", where, commit)
    if branch:
        git(folder, "branch", "--quiet", "--force", "--no-track", where.removeprefix("refs/"), commit)
    return commit


def push_results(folder: Path, name: str, *, branch: bool = False) -> None:
    """Send the results to origin: their reference, and the branch if there is one.

    Raises:
        GitFailed: if origin does not take them, or has commits of somebody else in the branch.
    """
    where = [f"+{reference(name)}:{reference(name)}"]
    if branch:  # without a "+", which would undo the lease
        head = reference(name).replace("refs/", "refs/heads/", 1)
        where += [f"{head}:{head}"]
    options = ("--quiet", "--force-with-lease", "--force-if-includes")
    git(folder, "push", *options, "--", "origin", *where, seconds=NETWORK_SECONDS)
