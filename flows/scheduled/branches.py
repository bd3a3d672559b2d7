"""Branches that results are offered as: new ones, and those that Attune made; here and on origin, nobody else's move.

`refs/attune-offered/BRANCH` says where Attune left a branch. It is pushed along, so that another clone knows it, too.
"""

from collections.abc import Collection
from pathlib import Path

from flows.scheduled.repository import LONGEST_NAME, NETWORK_SECONDS, GitFailed, git, object_at, succeeds
from stages.common.errors import AttuneError
from stages.common.shown import shown

HEADS, OFFERED = "refs/heads/", "refs/attune-offered/"
ANOTHER = "name another branch"


def offered(branch: str) -> str:
    """Return the reference that says where Attune left a branch."""
    return f"{OFFERED}{branch}"


def check_branch(root: Path, branch: str) -> str:
    """Return the commit of a branch that Attune made and may move, or nothing if there is none of the name yet.

    Raises:
        AttuneError: if it is somebody's own, no name of a branch, or one that cannot stand beside another.
    """
    said = shown(branch, 60)
    if not branch.isprintable() or len(branch.encode()) > LONGEST_NAME or branch.startswith("-"):
        raise AttuneError(f"{said!r} is no name of a branch", f"take letters, digits and -, {LONGEST_NAME} at most")
    if branch in ("HEAD", "@") or not succeeds(root, "check-ref-format", f"{HEADS}{branch}"):
        raise AttuneError(f"{said!r} is no name of a branch", "take letters, digits and -")
    for kind in (HEADS, OFFERED):
        _check_beside(branch, kind, git(root, "for-each-ref", "--format=%(refname)", kind).split("\n"))
    tip = object_at(root, f"{HEADS}{branch}")
    if tip and tip != object_at(root, offered(branch)):
        raise AttuneError(f"the branch {said} is not as Attune left it: it is somebody's own", ANOTHER)
    if f"branch {HEADS}{branch}" in git(root, "worktree", "list", "--porcelain").split("\n"):
        raise AttuneError(f"the branch {said} is checked out somewhere", ANOTHER)
    return tip


def check_origin(root: Path, branch: str) -> str:
    """Return the commit of a branch on origin that Attune made and may move, or nothing if origin has none.

    A clone that has not offered the branch yet takes over where another one left it, so that it moves on from there.

    Raises:
        AttuneError: if it is somebody's own, or cannot be moved forward from here; or origin does not answer.
    """
    said, ours = shown(branch, 60), offered(branch)
    listed = git(root, "ls-remote", "--", "origin", f"{HEADS}*", f"{OFFERED}*", seconds=NETWORK_SECONDS).split("\n")
    there = {name: commit for commit, _, name in (line.partition("\t") for line in listed)}
    for kind in (HEADS, OFFERED):
        _check_beside(branch, kind, there, " on origin")
    tip, here = there.get(f"{HEADS}{branch}", ""), object_at(root, ours)
    if tip and tip not in (here, there.get(ours)):
        raise AttuneError(f"the branch {said} on origin is not as Attune left it: it is somebody's own", ANOTHER)
    if tip and not here:
        options = ("--quiet", "--no-write-fetch-head", "--refmap=")
        git(root, "fetch", *options, "--", "origin", f"{HEADS}{branch}:{ours}", seconds=NETWORK_SECONDS)
    elif tip and not succeeds(root, "merge-base", "--is-ancestor", tip, here):
        raise AttuneError(f"another clone has moved the branch {said} on origin", "name one branch for each clone")
    return tip


def point(root: Path, branch: str, commit: str) -> None:
    """Make a branch, or move one that Attune made.

    Raises:
        AttuneError: if it has become somebody's own.
    """
    tip = check_branch(root, branch)
    lines = [
        "start",
        f"update {HEADS}{branch} {commit} {tip or '0' * len(commit)}",
        f"update {offered(branch)} {commit}",
        "prepare",
        "commit",
        "",
    ]
    try:
        git(root, "update-ref", "-m", "attune: results", "--stdin", text="\n".join(lines))
    except GitFailed as error:
        raise AttuneError(f"there is no branch {branch} of the results: {error.what}", ANOTHER) from None


def _check_beside(branch: str, kind: str, names: Collection[str], where: str = "") -> None:
    """Refuse a name of which another one is the folder, or the other way round: Git can keep only one of them."""
    asked = f"{kind}{branch}/"
    for name in sorted(name for name in names if name.startswith(kind)):
        if name != f"{kind}{branch}" and (asked.startswith(f"{name}/") or name.startswith(asked)):
            told = f"the branch {shown(branch, 60)} cannot stand beside {shown(name, 60)}{where}"
            raise AttuneError(told, ANOTHER)
