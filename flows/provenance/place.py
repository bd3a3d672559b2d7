"""The folder that a version is restored into: where one may be made, and what may be written in it."""

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.git import GitFailed, asked, git
from flows.told.redact import redacted
from stages.common.errors import AttuneError
from stages.common.shown import shown
from stages.common.stage import WORK

MARK = "attune-restore"  # in the worktree's own folder in .git, while a restore is at work


def checked(home: Path, folder: Path) -> Path:
    """Return the folder's full path, if a worktree may be made there.

    Raises:
        AttuneError: if not.
    """
    folder, home = Path(os.path.normpath(folder.absolute())), home.resolve()
    _check_home(home)
    said = shown(str(folder), 200)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise AttuneError(f"{said} is no folder", "name one that does not exist yet")
    place = folder.resolve()
    for one in _worktrees(home):
        if place in one.parents or (place == one and _holds_something(one)):
            told = "is a checkout of the project" if place == one else f"holds the checkout {shown(str(one), 200)}"
            if place == one and _is_broken_off(home, place):
                break
            raise AttuneError(f"{said} {told}, which is to stay as it is", "name a folder that does not exist yet")
        if one in place.parents and one / WORK not in place.parents:
            raise AttuneError(f"{said} lies in the checkout, which is to stay as it is", "name a folder beside it")
    if place in (Path.home(), *Path.home().parents):
        raise AttuneError(f"{said} is no place for a version", "name a folder that does not exist yet")
    if _holds_something(folder):
        if _is_broken_off(home, place):
            raise AttuneError(
                f"{said} holds what a restore left that was cut short",
                f"name another folder, or remove this one: git worktree remove --force --force {command_path(folder)}",
            )
        raise AttuneError(f"{said} holds something already", "name a folder that does not exist yet")
    return place


def begin(home: Path, place: Path, commit: str) -> None:
    """Make a worktree, marked as not complete."""
    git(home, "worktree", "add", "--quiet", "--detach", "--force", "--force", "--", str(place), commit)
    _mark(place).touch()


def complete(place: Path) -> None:
    """Take the mark away: what is there is a person's from now on."""
    _mark(place).unlink(missing_ok=True)


def remove(home: Path, place: Path) -> None:
    """Remove a worktree that came to nothing."""
    with suppress(GitFailed):
        git(home, "worktree", "remove", "--force", "--force", str(place))
    shutil.rmtree(place, ignore_errors=True)


def within(folder: Path, path: str) -> Path:
    """Return where a file or folder of the project is to be written.

    Args:
        folder: the worktree.
        path: within it, from a stranger.

    Raises:
        AttuneError: if that is outside of the folder, behind a link, or a place of Git's or DVC's.
    """
    target, root = Path(path), os.path.realpath(folder)
    names = target.parts
    full = folder / target
    real = os.path.realpath(full.parent) if names else ""
    inside = real == root or real.startswith(f"{root}{os.sep}")
    plain = bool(names) and not target.is_absolute() and ".." not in names and not names[0].startswith(".")
    if not plain or not inside or full.is_symlink():
        raise AttuneError(
            f"{shown(path, 120)} would be written outside of the folder, or through a link",
            "somebody else may have changed what the version keeps: look at its run's artifacts",
        )
    return full


@contextmanager
def dvc_errors(place: Path) -> Iterator[None]:
    """Have what DVC cannot do told to people."""
    from dvc.exceptions import DvcException
    from ruamel.yaml.error import YAMLError

    try:
        yield
    except (DvcException, YAMLError, AssertionError) as error:
        told = shown(redacted(str(error).partition("\n")[0]), 200) or type(error).__name__
        raise AttuneError(
            f"DVC cannot work in {shown(str(place), 200)}: {told}", "look at the commit's dvc.yaml"
        ) from None


def command_path(path: Path) -> str:
    """Return a path as a shell takes it, what has no form of its own as its code."""
    said = "".join(one if one.isprintable() else f"⟨U+{ord(one):04X}⟩" for one in str(path))
    return shlex.quote(said)


def _check_home(home: Path) -> None:
    top = asked(home, "rev-parse", "--show-toplevel")
    if not top:
        raise AttuneError(
            f"there is no Git repository in {shown(str(home), 200)}, and a restore starts from a commit",
            "go to a clone made with git",
        )
    if Path(top) != home:
        known = (home / "dvc.yaml").exists()
        raise AttuneError(
            f"{shown(str(home), 200)} is not the top folder of its Git repository, which is {shown(top, 200)}",
            "a project in a part of a larger repository cannot be restored this way; see the run's artifacts"
            if known
            else "go to the project's top folder",
        )


def _worktrees(home: Path) -> list[Path]:
    """Return the folders that are checked out of the repository."""
    listed = asked(home, "worktree", "list", "--porcelain").split("\n")
    found = [Path(one.removeprefix("worktree ")).resolve() for one in listed if one.startswith("worktree ")]
    return list(dict.fromkeys([home, *found]))


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _mark(place: Path) -> Path:
    return Path(place, git(place, "rev-parse", "--git-dir")) / MARK


def _is_broken_off(home: Path, place: Path) -> bool:
    """Say whether a folder is a worktree of this repository that a restore began and did not complete."""
    if asked(place, "rev-parse", "--show-toplevel") != str(place):
        return False
    common = (home / asked(home, "rev-parse", "--git-common-dir")).resolve()
    own = (place / asked(place, "rev-parse", "--git-dir")).resolve()
    return own.parent == common / "worktrees" and (own / MARK).exists()
