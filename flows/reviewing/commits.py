"""Which two commits a review is about."""

from dataclasses import dataclass
from pathlib import Path

from flows.repository.git import GitFailed, asked, find_commit, git, object_at
from flows.repository.worktrees import one_at_a_time

DEFAULT = {"origin/main": "refs/remotes/origin/main", "main": "refs/heads/main"}  # the first that there is
LOCK = "dvc.lock"


@dataclass(frozen=True)
class Commits:
    """The commits of a review, as full hashes, and their names as they were asked for, in short."""

    base_name: str
    asked: str  # what that name stands for
    base: str  # the last commit that both histories share; `asked` if they share none
    behind: int  # commits of `asked` that the head does not have
    head_name: str
    head: str
    notes: tuple[str, ...] = ()  # what a reader should know, a line each


def find_commits(home: Path, base: str | None, head: str) -> Commits:
    """Find both commits; a branch of a remote as that has it now, or as it was fetched last where it does not answer.

    Without a base it is `origin/main`, else `main`; where that is the head itself, the commit before the head.

    Raises:
        AttuneError: if one of them is no commit.
    """
    notes: list[str] = []
    with one_at_a_time(home):  # two that fetch at once would get into each other's way
        found = _find(home, head, notes)
        name = base if base is not None else next((name for name, ref in DEFAULT.items() if object_at(home, ref)), head)
        there = _find(home, name, notes)
    before = object_at(home, f"{found}~1^{{commit}}")
    if base is None and there == found and before:
        notes.append(f"{name} is the head itself, so the head is compared with the commit before it")
        name, there = f"{head}~1", before
    shared = asked(home, "merge-base", there, found)
    if not shared:
        notes.append(f"{name} and {head} share no history (or the clone is a shallow one): compared with {name} itself")
    if shared == found:
        notes.append(f"the head is in {name} already: there is nothing in it that could differ")
    behind = int(git(home, "rev-list", "--count", f"{found}..{there}")) if shared else 0
    return Commits(
        _short(home, name), there, shared or there, behind, _short(home, head), found, tuple(dict.fromkeys(notes))
    )


def _short(home: Path, name: str) -> str:
    """Return a name as people say it: of HEAD the branch that is checked out, of a full reference the end."""
    if name == "HEAD":
        return asked(home, "symbolic-ref", "--quiet", "--short", "HEAD") or name
    return name.removeprefix("refs/remotes/").removeprefix("refs/heads/")


def _find(home: Path, name: str, notes: list[str]) -> str:
    try:
        return find_commit(home, name)
    except GitFailed as error:
        if found := object_at(home, f"{name}^{{commit}}"):
            notes.append(f"{name} is as it was fetched last: {error.what}")
            return found
        raise
