"""The worktrees of a review, beside the checkout whose DVC cache they share, and what their commits recorded."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from flows.git import asked, git, succeeds
from flows.reviewing.commits import LOCK, has_marks
from flows.reviewing.rebuild import Log
from flows.reviewing.revision import Revision
from flows.scheduled.worktree_files import INBOX, check_out, default_remote, fetch_all, furnish
from flows.worktree import WORKTREES, lock_of, one_at_a_time, remove, sweep
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_graph, read_lock
from stages.common.locks import locked
from stages.common.params.loading import PARAMS_FILE, read_yaml
from stages.common.recorded import Change, changes
from stages.common.tracking.registry import STAMP

NAMED = "review-"  # what the next review removes if nobody holds it
KEPT = "look-"  # what stays for a person to look at, for days


@contextmanager
def opened(home: Path, commits: Mapping[str, str], log: Log, *, keep: bool = False) -> Iterator[dict[str, Path]]:
    """Make a worktree of each commit, and remove them at the end, however that comes.

    Args:
        home: a checkout.
        commits: full hashes by what they are: `base`, `head`, `rebuild`.
        log: gets what a person should know.
        keep: leave them.
    """
    with ExitStack() as stack:
        with one_at_a_time(home):
            sweep(home, log, NAMED, 0)  # of a review that was killed
            sweep(home, log, KEPT)
            name = f"{KEPT if keep else NAMED}{secrets.token_hex(3)}"
            folders = {role: home / WORKTREES / f"{name}-{role}" for role in commits}
            for role, folder in folders.items():
                stack.enter_context(_held(home, folder, keep=keep))
                git(home, "worktree", "add", "--quiet", "--detach", str(folder), commits[role])
        yield folders


@contextmanager
def _held(home: Path, folder: Path, *, keep: bool) -> Iterator[None]:
    """Hold the lock of a worktree that is to be made, so that nobody sweeps it away; remove both in the end."""
    with locked(lock_of(folder)) as mine:
        if not mine:
            raise AttuneError(f"another process is at work in {folder}", "start the review again")
        try:
            yield
        finally:
            if keep:
                lock_of(folder).unlink(missing_ok=True)
            else:
                remove(home, folder)


def revision_at(home: Path, folder: Path, name: str, log: Log) -> Revision:
    """Furnish a worktree with the outs of its commit, as far as DVC's cache or remote has them; return what it holds.

    Args:
        home: the checkout that it belongs to.
        folder: the worktree.
        name: as the commit was asked for.
        log: gets what a person should know.

    Raises:
        AttuneError: if the commit holds no project that can be read.
    """
    furnish(home, folder, log)
    if (folder / LOCK).exists() and has_marks((folder / LOCK).read_text(encoding="utf-8", errors="replace")):
        (folder / LOCK).unlink()  # neither side of an unfinished merge
    graph, lock, data = read_graph(folder), lock_at(folder), read_yaml(folder / PARAMS_FILE)
    if not isinstance(data, dict):
        raise AttuneError(f"{PARAMS_FILE} holds no sections", "docs/params.md lists them")
    check_out(folder, log, made=bool(lock))
    if missing_outs(folder, lock) and default_remote(folder):
        fetch_all(folder, log)
        check_out(folder, log)
    stale = stale_stages(folder, graph, lock) if lock else {}
    # What Git does not keep is as it is in the checkout now: that says nothing of the commit.
    elsewhere = [name for name, reasons in stale.items() if any(map(_of_inbox, reasons)) and not _in_git(folder)]
    stale |= {name: [reason for reason in stale[name] if not _of_inbox(reason)] for name in elsewhere}
    return Revision(
        name=name,
        commit=git(folder, "rev-parse", "HEAD"),
        subject=git(folder, "log", "-1", "--format=%s"),
        folder=folder,
        graph=graph,
        lock=lock,
        data=data,
        results="recorded" if lock else "none",
        stale={name: "; ".join(map(str, reasons)) for name, reasons in stale.items() if reasons},
        own_data=not elsewhere,
    )


def lock_at(folder: Path) -> dict[str, Any]:
    """Return the stages of a worktree's `dvc.lock`.

    Raises:
        AttuneError: if it is none.
    """
    try:
        found = read_lock(folder)
        sound = all({"path"} <= set(entry) for stage in found.values() for entry in stage.get("outs", []))
    except (YAMLError, AttributeError, TypeError, UnicodeDecodeError):
        sound = False
    if not sound:
        raise AttuneError(f"{LOCK} is not understood", "take it from another commit, then make run")
    return found


def missing_outs(folder: Path, lock: Mapping[str, Any]) -> list[str]:
    """Return the outs that `dvc.lock` names and a worktree lacks; the stamp of a registry is in none."""
    named = [out["path"] for stage in lock.values() for out in stage.get("outs", [])]
    return [path for path in named if path != str(STAMP) and not (folder / path).exists()]


def stale_stages(folder: Path, graph: Mapping[str, Node], lock: Mapping[str, Any]) -> dict[str, list[Change]]:
    """Return the stages whose record is not of the code, params and data in a worktree, each with the reasons.

    An input that another stage makes and that is not there counts as it was recorded, where both records agree on it.
    """
    made = {out["path"]: out.get("md5") for stage in lock.values() for out in stage.get("outs", [])}

    def counts(name: str, change: Change) -> bool:
        read = {dep["path"]: dep.get("md5") for dep in lock.get(name, {}).get("deps", [])}
        as_recorded = change.how == "deleted" and read.get(change.what) and read[change.what] == made.get(change.what)
        return change.kind != "runs always" and not as_recorded

    found = changes(list(graph), root=folder, outs=False)
    counted = {name: [reason for reason in reasons if counts(name, reason)] for name, reasons in found.items()}
    return {name: reasons for name, reasons in counted.items() if reasons}


def _of_inbox(change: Change) -> bool:
    return change.kind == "data" and Path(change.what) == INBOX


def _in_git(folder: Path) -> bool:
    """Say whether Git has other data of people's own than when the results were recorded, itself or as pointers."""
    recorded = asked(folder, "log", "-1", "--format=%H", "--", LOCK)
    return bool(recorded) and not succeeds(folder, "diff", "--quiet", recorded, "HEAD", "--", str(INBOX))
