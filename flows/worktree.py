"""Pull steps of prefect.yaml: each scheduled run works in a git worktree of its own, at a known commit.

`enter` makes it in `.attune/worktrees/` of the checkout that ATTUNE_HOME names, or enters it again as it was left where
the run comes a second time. Prefect then loads the flow from there, so flow and stages are of one commit. `claim` is
for a clone that was made for the run alone (a container without ATTUNE_HOME).
"""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flows.git import NETWORK_SECONDS, GitFailed, find_commit, git
from flows.scheduled.place import WORKTREES, Place, checked, held, note, noted, one_at_a_time, remove, sweep
from flows.scheduled.results import recall, reference
from flows.scheduled.worktree_files import check_out, fetch_all, furnish
from stages.common.errors import AttuneError
from stages.common.redact import redacted
from stages.common.shown import visible

CODE = ("flows", "stages")
NO_HOME = "point ATTUNE_HOME at one: git clone …"

Log = Callable[[str], None]


def enter() -> dict[str, str]:
    """Make the worktree of this flow run from the current folder, or enter it again; a pull step.

    Returns:
        Its path as `directory`.

    Raises:
        AttuneError: if the current folder is no checkout, or the run's parameter `commit` names none; told in the run's
            log as well.
    """
    return _in_flow_run(open_worktree)


def claim() -> dict[str, str]:
    """Make the current folder the flow run's own, a clone that was made for it; a pull step.

    Raises:
        AttuneError: if it holds anything that is not in Git: a person's checkout does.
    """
    return _in_flow_run(take_clone)


def open_worktree(home: Path, run: str, name: str, commit: str, log: Log) -> Path:
    """Return the worktree of a run: a new one at `commit`, or as it was left.

    Args:
        home: a checkout of the project.
        run: id of the flow run.
        name: of its deployment.
        commit: what Git resolves to a commit.
        log: gets what a person should know.

    Raises:
        AttuneError: if there is no such commit or no project, or another process is at work in it.
    """
    home = checked(home, NO_HOME)
    folder = home / WORKTREES / _short(run)
    place = Place(folder, home, run, name)
    with one_at_a_time(home):
        sweep(home, log)
        if noted(folder) == place:
            with held(place):
                log(f"goes on in {folder}, as it was left")
            return folder
        found = find_commit(home, commit)
        if folder.exists():
            remove(home, folder)  # half made, by a process that was killed
        git(home, "worktree", "add", "--quiet", "--detach", str(folder), found)
    furnish(home, folder, log)
    _start_from_last(folder, name, log)
    note(place)
    log(f"works in {folder}, at commit {found[:10]}")
    return folder


def take_clone(folder: Path, run: str, name: str, commit: str, log: Log) -> Path:
    """Make a clone the place of a run; the parameters are those of `open_worktree`.

    Raises:
        AttuneError: if it holds anything that is not in Git, or is no project.
    """
    folder = checked(folder, NO_HOME)
    place = Place(folder, folder, run, name)
    if noted(folder) == place:
        return folder
    status = git(folder, "status", "--porcelain", "--ignored", "--untracked-files=all").split("\n")
    if any(line and "__pycache__" not in line for line in status):
        raise AttuneError(f"{folder} holds files that are not in Git: it may be somebody's own", "flows.worktree.enter")
    found = find_commit(folder, commit)
    git(folder, "checkout", "--quiet", "--detach", found)
    with suppress(GitFailed):  # there are none yet
        earlier = f"+{reference(name)}:{reference(name)}"
        git(folder, "fetch", "--quiet", "--", "origin", earlier, seconds=NETWORK_SECONDS)
    _start_from_last(folder, name, log, fetch=True)
    note(place)
    log(f"works in the clone {folder}, at commit {found[:10]}")
    return folder


def _in_flow_run(prepare: Callable[[Path, str, str, str, Log], Path]) -> dict[str, str]:
    from prefect.client.orchestration import get_client
    from prefect.logging.loggers import flow_run_logger

    run = os.environ.get("PREFECT__FLOW_RUN_ID")
    if not run:
        raise AttuneError("there is no flow run to work for", "this is a pull step of prefect.yaml")
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(run)  # type: ignore[arg-type]
        deployment = client.read_deployment(flow_run.deployment_id) if flow_run.deployment_id else None
    logger, commit = flow_run_logger(flow_run), str(flow_run.parameters.get("commit") or "HEAD")
    name = deployment.name if deployment else "retrain"
    try:
        folder = prepare(Path.cwd(), str(flow_run.id), name, commit, lambda line: logger.info(visible(line)))
    except Exception as error:  # of which Prefect tells the worker alone
        lines = redacted(str(error) if isinstance(error, AttuneError) else repr(error)).split("\n")
        logger.error("\n".join(map(visible, lines)))
        raise
    # Where the flow is loaded by this very process, it must not get the modules of the folder that it came from.
    for module in [module for module in sys.modules if module.partition(".")[0] in CODE]:
        del sys.modules[module]
    os.chdir(folder)
    return {"directory": str(folder)}


def _start_from_last(folder: Path, name: str, log: Log, *, fetch: bool = False) -> None:
    if last := recall(folder, name):
        log(f"goes on from the results of an earlier run ({last[:10]} in {reference(name)})")
    if fetch:
        fetch_all(folder, log)
    check_out(folder, log)


def _short(run: str) -> str:
    """Return the end of a flow run's id: its beginning is the time, the same for all runs of a minute (UUIDv7)."""
    digits = re.sub("[^0-9a-f]", "", run.lower())
    if len(digits) < 12:
        raise AttuneError(f"{run!r} is no id of a flow run")
    return digits[-12:]
