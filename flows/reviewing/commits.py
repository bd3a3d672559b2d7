"""Which two commits a review is about, and whether the head can be merged into the base as it is now."""

import re
from dataclasses import dataclass
from pathlib import Path

from flows.git import GitFailed, asked, find_commit, git, object_at
from flows.worktree import one_at_a_time

DEFAULT = {"origin/main": "refs/remotes/origin/main", "main": "refs/heads/main"}  # the first that there is
LOCK = "dvc.lock"
MARKS = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
CLEAN, CONFLICTING = 0, 1  # exit statuses of `git merge-tree`


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
        base: what the head is compared with.
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
            notes.append(f"{name} is the head itself, so the head is compared with the commit before it")
            name = f"{head}~1"
        elif base is None and name not in DEFAULT and not before:
            name = head  # the only commit there is
        there = _find(home, name, notes)
    shared = asked(home, "merge-base", there, found)
    if not shared:
        notes.append(f"{name} and {head} share no history (or the clone is a shallow one): compared with {name} itself")
    behind = int(git(home, "rev-list", "--count", f"{found}..{there}")) if shared else 0
    if shared == found:
        notes.append(f"the head is in {name} already: there is nothing in it that could differ")
    return Commits(
        _short(home, name), there, shared or there, behind, _short(home, head), found, tuple(dict.fromkeys(notes))
    )


def has_marks(text: str) -> bool:
    """Return whether a text holds the marks of a merge that nobody has finished."""
    return bool(MARKS.search(text))


def conflicts(home: Path, base: str, head: str) -> tuple[tuple[str, ...], str]:
    """Return the files that keep a head from being merged into a base, and a note if Git could not say.

    Args:
        home: a checkout; but for objects of Git's, nothing in it changes.
        base: full hash.
        head: full hash.
    """
    files: list[str] = []
    note = ""
    options = ("--write-tree", "--name-only", "--no-messages", "-z")
    try:
        printed = git(home, "merge-tree", *options, base, head, answers=(CLEAN, CONFLICTING))
        files = list(filter(None, printed.split("\0")[1:]))  # after the tree that the merge would make
    except GitFailed as error:
        note = f"whether the head merges into the base is not known (that takes Git 2.38 or newer): {error.what}"
    if has_marks(asked(home, "show", f"{head}:{LOCK}")):
        files.append(LOCK)
    return tuple(dict.fromkeys(files)), note


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
