"""What a scheduled run leaves behind: a commit of `dvc.lock` and `reports/` that no branch of a person's points at.

It stands in `refs/attune/NAME`, and the next run goes on from there: a lock is a memo of which inputs gave which outs,
so it is sound whoever starts from it. A branch below `attune/` points at it, too, where that is asked for.
"""

import re
from pathlib import Path

from flows.git import NETWORK_SECONDS, asked, git, object_at, succeeds
from flows.scheduled.worktree_files import default_remote, push_all
from stages.common.errors import AttuneError
from stages.common.shown import shown

BRANCHES = "attune/"
KEPT = ("dvc.lock", "reports", "params.yaml")
RECALLED = KEPT[:2]
REMEMBERED = 50  # earlier results looked through
ATTUNE = {"NAME": "Attune", "EMAIL": "attune@localhost"}


def reference(name: str) -> str:
    """Return where results of this name are: `refs/attune/nightly`."""
    return f"refs/attune/{re.sub('[^A-Za-z0-9]+', '-', name).strip('-') or 'retrain'}"


def branch_of(root: Path, wish: str | bool | None, name: str) -> str:
    """Return the branch that is to point at results, or nothing.

    Args:
        root: a checkout.
        wish: the branch, or true: `attune/NAME`.
        name: of the results.

    Raises:
        AttuneError: if it is no name of a branch, or not below `attune/`, where it might be somebody's own.
    """
    branch = reference(name).removeprefix("refs/") if wish is True else wish or ""
    if branch and not (branch.startswith(BRANCHES) and succeeds(root, "check-ref-format", "--branch", branch)):
        fix = f"name one below {BRANCHES}: {BRANCHES}nightly"
        raise AttuneError(f"{shown(branch, 60)!r} is no branch for results", fix)
    return branch


def recall(folder: Path, name: str) -> str:
    """Take over `dvc.lock` and `reports/` of the last result that began from the same `dvc.lock` as this commit's.

    Args:
        folder: a worktree without changes.
        name: of the results.

    Returns:
        The commit they were taken from, or nothing.
    """
    where, base = reference(name), object_at(folder, "HEAD:dvc.lock")
    earlier = asked(folder, "log", "--walk-reflogs", "--format=%H", f"--max-count={REMEMBERED}", where, "--").split()
    for commit in dict.fromkeys([object_at(folder, where), *earlier]):
        lock = object_at(folder, f"{commit}:dvc.lock") if commit else ""
        if lock and lock != base and object_at(folder, f"{commit}^:dvc.lock") == base:
            there = [path for path in RECALLED if object_at(folder, f"{commit}:{path}")]
            git(folder, "restore", f"--source={commit}", "--worktree", "--", *there)
            return commit
    return ""


def keep(folder: Path, name: str, message: str, branch: str = "") -> str:
    """Make a commit of the results on top of the run's commit, and point the name (and a branch) at it.

    Hooks do not run, and HEAD does not move.

    Args:
        folder: the run's worktree.
        name: of the results.
        message: of the commit.
        branch: that is to point at it, too.

    Returns:
        The commit, or nothing if the results are what the run's commit says already.

    Raises:
        GitFailed: if the branch is checked out somewhere; the results are kept all the same.
    """
    there = [path for path in KEPT if (folder / path).exists() or object_at(folder, f"HEAD:{path}")]
    git(folder, "add", "--all", "--", *there)
    tree, base, where = git(folder, "write-tree"), git(folder, "rev-parse", "HEAD"), reference(name)
    if tree == object_at(folder, "HEAD^{tree}"):
        return ""
    commit = object_at(folder, where)
    if not commit or object_at(folder, f"{commit}^{{tree}}") != tree or object_at(folder, f"{commit}^") != base:
        commit = git(folder, "commit-tree", tree, "-p", base, environment=_identity(folder), text=message)
        git(folder, "update-ref", "--create-reflog", where, commit)
    if branch:
        git(folder, "branch", "--quiet", "--force", "--no-track", branch, commit)
    return commit


def push_data(folder: Path) -> str:
    """Send what `dvc.lock` names to DVC's default remote, if there is one; return what went wrong, or nothing."""
    remote = default_remote(folder)
    problem = push_all(folder) if remote else ""
    return f"nothing or not all was pushed to the DVC remote {shown(remote, 40)}: {problem}" if problem else ""


def push_commit(folder: Path, name: str, commit: str, branch: str) -> None:
    """Send the results to origin: Attune's own reference, and the branch if there is one.

    Raises:
        GitFailed: if origin does not take them, or has commits of somebody else in the branch.
    """
    where, lease = [f"+{commit}:{reference(name)}"], []
    if branch:  # in full, as refs/attune/NAME has the same short name; a "+" would undo the lease
        where.append(f"refs/heads/{branch}:refs/heads/{branch}")
        lease = [f"--force-with-lease=refs/heads/{branch}", "--force-if-includes"]
    git(folder, "push", "--quiet", *lease, "--", "origin", *where, seconds=NETWORK_SECONDS)


def _identity(root: Path) -> dict[str, str]:
    """Return Attune's name for commits where Git has been told none."""
    if all(asked(root, "config", f"user.{key}") for key in ("name", "email")):
        return {}
    return {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in ATTUNE.items()}
