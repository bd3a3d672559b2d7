"""What a scheduled run leaves behind: a commit of `dvc.lock` and `reports/` that no branch of a person's points at.

It stands in `refs/attune/NAME`, and the next run goes on from there: a lock is a memo of which inputs gave which outs,
so it is sound whoever starts from it. As a branch, and on the remote, it is offered only where that is asked for.
"""

import re
from pathlib import Path

from flows.scheduled.branches import HEADS, check_origin, offered, point
from flows.scheduled.repository import NETWORK_SECONDS, asked, git, object_at, succeeds
from flows.scheduled.worktree_files import default_remote, push_all
from stages.common.shown import shown

KEPT = ("dvc.lock", "reports", "params.yaml")
RECALLED = KEPT[:2]
REMEMBERED = 50  # earlier results looked through
ATTUNE = {"NAME": "Attune", "EMAIL": "attune@localhost"}


def reference(name: str) -> str:
    """Return where results of this name are: `refs/attune/nightly`."""
    return f"refs/attune/{re.sub('[^A-Za-z0-9]+', '-', name).strip('-') or 'retrain'}"


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


def keep(folder: Path, name: str, message: str, branch: str | None = None) -> str:
    """Make a commit of the results on top of the run's commit, and point the name (and a branch) at it.

    Hooks do not run, and neither HEAD nor anybody's branch moves.

    Args:
        folder: the run's worktree.
        name: of the results.
        message: of the commit.
        branch: to offer it as, too.

    Returns:
        The commit, or nothing if the results are what the run's commit says already.

    Raises:
        AttuneError: if the branch has become somebody's own in the meantime; the results are kept all the same.
    """
    there = [path for path in KEPT if (folder / path).exists() or object_at(folder, f"HEAD:{path}")]
    git(folder, "add", "--all", "--", *there)
    tree, base, where = git(folder, "write-tree"), git(folder, "rev-parse", "HEAD"), reference(name)
    if tree == object_at(folder, "HEAD^{tree}"):
        return ""
    # With the branch's tip as second parent, a branch that others have fetched only ever moves forward.
    tip = object_at(folder, offered(branch)) if branch else ""
    after = [tip] if tip and not _is_ancestor(folder, tip, base) else []
    commit = object_at(folder, where)
    as_before = commit and object_at(folder, f"{commit}^{{tree}}") == tree and object_at(folder, f"{commit}^") == base
    if not as_before or not all(_is_ancestor(folder, one, commit) for one in after):
        parents = [part for parent in (base, *after) for part in ("-p", parent)]
        commit = git(folder, "commit-tree", tree, *parents, environment=_identity(folder), text=message)
        git(folder, "update-ref", "--create-reflog", where, commit)
    if branch:
        point(folder, branch, commit)
    return commit


def push_data(folder: Path) -> str:
    """Send what `dvc.lock` names to DVC's default remote, if there is one; return what went wrong, or nothing."""
    remote = default_remote(folder)
    problem = push_all(folder) if remote else ""
    return f"nothing or not all was pushed to the DVC remote {shown(remote, 40)}: {problem}" if problem else ""


def push_commit(folder: Path, name: str, commit: str, branch: str | None) -> None:
    """Send the results to origin: Attune's own reference, and the branch if there is one and nobody has touched it.

    Raises:
        AttuneError: if the branch is somebody's own by now, or origin does not take what it gets.
    """
    lease, where = [], [f"+{commit}:{reference(name)}"]
    if branch:
        # Moved only from where it was found: between the question and the push it may become somebody's own.
        lease = [f"--force-with-lease={HEADS}{branch}:{check_origin(folder, branch)}"]
        where.append(f"{commit}:{HEADS}{branch}")
    git(folder, "push", "--quiet", *lease, "--", "origin", *where, seconds=NETWORK_SECONDS)
    if branch:
        git(folder, "push", "--quiet", "--", "origin", f"+{commit}:{offered(branch)}", seconds=NETWORK_SECONDS)


def _is_ancestor(root: Path, commit: str, of: str) -> bool:
    return succeeds(root, "merge-base", "--is-ancestor", commit, of)


def _identity(root: Path) -> dict[str, str]:
    """Return Attune's name for commits where Git has been told none."""
    if all(asked(root, "config", f"user.{key}") for key in ("name", "email")):
        return {}
    return {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in ATTUNE.items()}
