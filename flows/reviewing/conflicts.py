"""Whether the head can be merged into the base as it is now, asked of Git without a merge."""

import re
from pathlib import Path

from flows.git import GitFailed, asked, git
from flows.reviewing.findings import Conflict

LOCK = "dvc.lock"
MARKS = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
CLEAN, CONFLICTING = 0, 1  # exit statuses of `git merge-tree`


def has_marks(text: str) -> bool:
    """Return whether a text holds the marks of a merge that nobody has finished."""
    return bool(MARKS.search(text))


def conflict_with(home: Path, base: str, head: str) -> tuple[Conflict | None, str]:
    """Return what keeps the head from being merged into the base, and a note if Git could not say.

    Args:
        home: a checkout; but for objects of Git's, nothing in it changes.
        base: full hash of the base as it was asked for.
        head: full hash.
    """
    note = ""
    try:
        files = _conflicting_files(home, base, head)
    except GitFailed as error:
        files = ()
        note = f"whether the head merges into the base is not known (that takes Git 2.38 or newer): {error.what}"
    if LOCK not in files and has_marks(asked(home, "show", f"{head}:{LOCK}")):
        files = (*files, LOCK)
    return (Conflict(files, LOCK in files) if files else None), note


def _conflicting_files(home: Path, base: str, head: str) -> tuple[str, ...]:
    """Return the files that both commits changed in the same place since their histories parted."""
    options = ("--write-tree", "--name-only", "--no-messages", "-z")
    told = git(home, "merge-tree", *options, base, head, answers=(CLEAN, CONFLICTING))
    return tuple(dict.fromkeys(filter(None, told.split("\0")[1:])))  # after the tree that the merge would make
