"""Which two commits a review is about: the head, and the last one that it shares with the base."""

from dataclasses import dataclass
from pathlib import Path

from flows.git import GitFailed, asked, find_commit, git, object_at
from flows.scheduled.place import one_at_a_time

DEFAULT = {"origin/main": "refs/remotes/origin/main", "main": "refs/heads/main"}  # the first that there is


@dataclass(frozen=True)
class Commits:
    """The commits of a review, as full hashes.

    Args:
        base_name: as it was asked for, in short.
        asked: what that name stands for.
        base: the last commit that both histories share; `asked` if they share none.
        behind: commits of `asked` that the head does not have.
        head_name: as it was asked for, in short.
        head: what is reviewed.
        notes: what a reader should know, a line each.
    """

    base_name: str
    asked: str
    base: str
    behind: int
    head_name: str
    head: str
    notes: tuple[str, ...] = ()


def find_commits(home: Path, base: str | None, head: str) -> Commits:
    """Find both commits; a branch of a remote as that has it now, or as it was fetched last where it does not answer.

    Without a base it is `origin/main`, else `main`; where that is the head itself, the commit before the head.

    Args:
        home: a checkout.
        base: what the head is held against.
        head: what is reviewed.

    Raises:
        AttuneError: if one of them is no commit.
    """
    notes: list[str] = []
    with one_at_a_time(home):  # two that fetch at once would get into each other's way
        found = _find(home, head, notes)
        default = next((name for name, ref in DEFAULT.items() if object_at(home, ref)), f"{head}~1")
        name = default if base is None else base
        before = object_at(home, f"{found}~1^{{commit}}")
        if base is None and name in DEFAULT and before and _find(home, name, notes) == found:
            notes.append(f"{name} is the head itself, so the head is held against the commit before it")
            name = f"{head}~1"
        elif base is None and name not in DEFAULT and not before:
            name = head  # the only commit there is
        there = _find(home, name, notes)
    shared = asked(home, "merge-base", there, found)
    if not shared:
        notes.append(f"{name} and {head} share no history (or the clone is a shallow one): held against {name} itself")
    behind = int(git(home, "rev-list", "--count", f"{found}..{there}")) if shared else 0
    if shared == found:
        notes.append(f"the head is in {name} already: there is nothing in it that could differ")
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
