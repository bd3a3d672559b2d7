"""The place of a scheduled run: a worktree of its own, known by a note in Git's own folder, held by a lock."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.git import GitFailed, asked, git
from stages.common.errors import AttuneError
from stages.common.locks import in_turn, locked
from stages.common.stage import WORK

WORKTREES = WORK / "worktrees"
NOTE = "attune.json"  # in Git's own folder of the worktree, where nobody takes it for a file of the project
OLD_SECONDS = 3 * 24 * 3600


@dataclass(frozen=True)
class Place:
    """Where a run works.

    Args:
        folder: its worktree or clone.
        home: the checkout whose cache it shares; `folder` itself if that is a clone of the run's own.
        run: id of the flow run.
        name: of the deployment, under which its results are kept.
    """

    folder: Path
    home: Path
    run: str
    name: str

    @property
    def lock(self) -> Path:
        """What the process at work here holds."""
        return self.folder / WORK / "run.lock" if self.home == self.folder else lock_of(self.folder)


def here(run: str | None) -> Place:
    """Return the place of this flow run, which is the current folder.

    Raises:
        AttuneError: if it is another folder, such as somebody's checkout, or the running code is not of this folder.
    """
    folder = Path.cwd()
    place = noted(folder)
    if place is None or not run or place.run != run:
        raise AttuneError(
            f"{folder} was not made for this run, and may be somebody's own",
            "start it through its deployment (docs/retraining.md); in your own checkout: make flow",
        )
    if (code := Path(__file__).resolve().parents[2]) != folder:
        raise AttuneError(f"the running flow is of {code}, not of {folder}", "take other folders out of PYTHONPATH")
    return place


@contextmanager
def held(place: Place) -> Iterator[None]:
    """Hold a place, so that no other run cleans it away.

    Raises:
        AttuneError: if another process holds it.
    """
    place.lock.parent.mkdir(exist_ok=True)
    with locked(place.lock) as mine:
        if not mine:
            raise AttuneError(f"another process is at work in {place.folder}", "wait for it, or end it")
        try:
            yield
        finally:
            note(place)  # its age counts from now on


def leave(place: Place) -> None:
    """Go home and remove the worktree; a clone stays, for whoever made it."""
    if place.home == place.folder:
        return
    os.chdir(place.home)
    remove(place.home, place.folder)


def noted(folder: Path) -> Place | None:
    """Return the place that a folder was noted to be, if it is one.

    Raises:
        AttuneError: if the note cannot be read.
    """
    path = _note_path(folder)
    if path is None or not path.exists():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Place(Path(known["folder"]), Path(known["home"]), known["run"], known["name"])
    except (OSError, ValueError, KeyError, TypeError):
        told = f"the note of the run that {folder} was made for cannot be read: {path}"
        raise AttuneError(
            told, "save what you need of the folder, remove the note, and retry: it is made anew"
        ) from None


def note(place: Place) -> None:
    """Note that a worktree or clone is ready for its run, and was entered or left just now."""
    path = _note_path(place.folder)
    if path is not None:
        part = path.with_name(f"{NOTE}.part")  # whoever is killed while writing leaves the old note as it was
        part.write_text(json.dumps({name: str(value) for name, value in asdict(place).items()}), encoding="utf-8")
        part.replace(path)


def one_at_a_time(home: Path) -> AbstractContextManager[None]:
    """Wait until no other run makes or sweeps worktrees here: that takes seconds, or minutes where it fetches."""
    return in_turn(home / WORKTREES / "lock")


def checked(folder: Path, fix: str) -> Path:
    """Return the full path of a checkout of a project.

    Raises:
        AttuneError: if it is none, with what to do about it.
    """
    folder = folder.resolve()
    if asked(folder, "rev-parse", "--show-toplevel") != str(folder) or not (folder / ".dvc").is_dir():
        raise AttuneError(f"{folder} is no checkout of an Attune project", fix)
    return folder


def sweep(home: Path, log: Callable[[str], None], named: str = "", seconds: float = OLD_SECONDS) -> None:
    """Remove worktrees of runs that nobody holds, and nobody has entered or left for so many seconds.

    Only those whose names begin with `named`. `git worktree prune` would also forget a person's worktrees on a disk
    that is not there just now.
    """
    ours = home / WORKTREES
    listed = [Path(line.removeprefix("worktree ")) for line in git(home, "worktree", "list", "--porcelain").split("\n")]
    found = {*filter(Path.is_dir, ours.iterdir()), *(path for path in listed if path.parent == ours)}
    for folder in sorted(path for path in found if path.name.startswith(named)):
        path = _note_path(folder)
        seen = path if path and path.exists() else folder
        with locked(lock_of(folder)) as free:
            if free and (not folder.exists() or time.time() - seen.stat().st_mtime > seconds):
                remove(home, folder)
                log(f"removed the old worktree {folder}")


def remove(home: Path, folder: Path) -> None:
    """Remove a worktree and its lock; who calls this holds the lock or knows that nobody does."""
    with suppress(GitFailed):
        git(home, "worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)  # what Git does not know
    lock_of(folder).unlink(missing_ok=True)


def lock_of(folder: Path) -> Path:
    """Return the lock of a worktree, which stands beside it."""
    return folder.with_name(f"{folder.name}.lock")


def _note_path(folder: Path) -> Path | None:
    """Return where the note of a place is: in its own git folder, if `folder` is the top of a worktree or clone."""
    found = asked(folder, "rev-parse", "--show-toplevel", "--absolute-git-dir").split("\n") if folder.is_dir() else []
    return Path(found[1]) / NOTE if len(found) == 2 and Path(found[0]) == folder else None
