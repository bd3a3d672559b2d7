"""The worktrees of a review, beside the checkout whose DVC cache they share, and what their commits recorded."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from flows.repository.git import asked, git, succeeds
from flows.repository.worktree_files import INBOX, check_out, default_remote, fetch_all, furnish
from flows.repository.worktrees import WORKTREES, lock_of, one_at_a_time, remove, sweep
from flows.reviewing.commits import LOCK
from flows.reviewing.rebuild import Log
from flows.reviewing.revision import Revision
from stages.common.errors import AttuneError
from stages.common.locks import locked
from stages.common.params.loading import PARAMS_FILE, read_yaml
from stages.common.pipeline.dvc_status import Change, changes
from stages.common.pipeline.graph import Node, read_graph, read_lock
from stages.tracking.registry import STAMP

NAMED = "review-"  # what the next review removes if nobody holds it


@contextmanager
def opened(home: Path, commits: Mapping[str, str], log: Log) -> Iterator[dict[str, Path]]:
    """Make a worktree of each commit (by its role: `base`, `head`), and remove them at the end, however that comes."""
    with ExitStack() as stack:
        with one_at_a_time(home):
            sweep(home, log, NAMED, 0)  # of a review that was killed
            name = f"{NAMED}{secrets.token_hex(3)}"
            folders = {role: home / WORKTREES / f"{name}-{role}" for role in commits}
            for role, folder in folders.items():
                stack.enter_context(locked(lock_of(folder)))  # so that nobody sweeps it away
                stack.callback(remove, home, folder)
                git(home, "worktree", "add", "--quiet", "--detach", str(folder), commits[role])
        yield folders


def revision_at(home: Path, folder: Path, name: str, log: Log) -> Revision:
    """Furnish a worktree with the outs of its commit, as far as DVC's cache or remote has them; return what it holds.

    Raises:
        AttuneError: if the commit holds no project that can be read.
    """
    furnish(home, folder, log)
    graph, lock, data = read_graph(folder), lock_at(folder), read_yaml(folder / PARAMS_FILE)
    if not isinstance(data, dict):
        raise AttuneError(f"{PARAMS_FILE} holds no sections", "docs/params.md lists them")
    if not lock:
        (folder / LOCK).unlink(missing_ok=True)
    check_out(folder, log)
    if missing_outs(folder, lock) and default_remote(folder):
        fetch_all(folder, log)
        check_out(folder, log)
    stale = stale_stages(folder, graph, lock) if lock else {}
    # What Git does not keep is as it is in the checkout now: that says nothing of the commit.
    recorded = asked(folder, "log", "-1", "--format=%H", "--", LOCK)
    in_git = recorded and not succeeds(folder, "diff", "--quiet", recorded, "HEAD", "--", str(INBOX))

    def elsewhere(reason: Change) -> bool:
        return Path(reason.what) == INBOX and not in_git

    return Revision(
        name=name,
        commit=git(folder, "rev-parse", "HEAD"),
        subject=git(folder, "log", "-1", "--format=%s"),
        folder=folder,
        graph=graph,
        lock=lock,
        data=data,
        results="recorded" if lock else "none",
        stale={
            stage: how
            for stage, reasons in stale.items()
            if (how := "; ".join(str(reason) for reason in reasons if not elsewhere(reason)))
        },
        own_data=not any(elsewhere(reason) for reasons in stale.values() for reason in reasons),
    )


def lock_at(folder: Path) -> dict[str, Any]:
    """Return the stages of a worktree's `dvc.lock`; none if it is none, such as one with the marks of a merge."""
    try:
        return read_lock(folder)
    except (YAMLError, AttributeError, UnicodeDecodeError):
        return {}


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
