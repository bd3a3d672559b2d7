"""Git worktrees in `.attune/worktrees/` of a checkout, whose DVC cache they share: a new one for each scheduled run.

`enter` is a pull step of prefect.yaml: it makes the worktree of a flow run, or enters it again when the run is retried.
Prefect then loads the flow from there, so all code is of one commit.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from flows.repository.results import recall, reference
from flows.repository.worktree_files import Log, check_out, furnish
from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.git import NETWORK_SECONDS, GitFailed, find_commit, git
from stages.common.locks import in_turn, locked
from stages.common.pipeline.stage import WORK
from stages.common.redact import redacted

WORKTREES = WORK / "worktrees"
READY = WORK / "deployment"  # written when the worktree of a run is complete: the deployment's name
OLD_SECONDS = 3 * 24 * 3600


def enter(fetch: bool = False) -> dict[str, str]:
    """Make the worktree of this flow run from the current folder, or enter it again; a pull step.

    With `fetch`, earlier results come from `origin` and data from DVC's remote, for a new clone. Errors are in the
    run's log, too.
    """
    from prefect.client.orchestration import get_client
    from prefect.logging.loggers import flow_run_logger

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(os.environ["PREFECT__FLOW_RUN_ID"])  # type: ignore[arg-type]
        deployment = client.read_deployment(run.deployment_id) if run.deployment_id else None
    logger, name = flow_run_logger(run), deployment.name if deployment else "retrain"
    commit = str(run.parameters.get("commit") or "HEAD")
    try:
        folder = open_worktree(
            Path.cwd(), str(run.id), name, commit, lambda line: logger.info(visible(line)), fetch=fetch
        )
    except Exception as error:  # Prefect reports it to the worker alone
        logger.error(visible(redacted(str(error) or repr(error))))
        raise
    # This process may load the flow: it must not get the modules of the folder that it came from.
    for module in [module for module in sys.modules if module.partition(".")[0] in ("flows", "stages")]:
        del sys.modules[module]
    os.chdir(folder)
    return {"directory": str(folder)}


def open_worktree(home: Path, run: str, name: str, commit: str, log: Log, *, fetch: bool = False) -> Path:
    """Return the worktree of a run: a new one at `commit`, or as the run left it.

    Raises:
        AttuneError: if there is no such commit or no project, or another process is at work in the worktree.
    """
    home = checked(home, "point ATTUNE_HOME at one: git clone …")
    folder = home / WORKTREES / _short(run)
    with one_at_a_time(home):
        sweep(home, log)
        if (folder / READY).exists():
            with held(folder):
                log(f"continues in {folder}")
            return folder
        commit = find_commit(home, commit)
        remove(home, folder)  # left incomplete by a process that was killed
        git(home, "worktree", "add", "--quiet", "--detach", str(folder), commit)
    furnish(home, folder, log)
    if fetch:
        earlier = f"+{reference(name)}:{reference(name)}"
        try:
            git(home, "fetch", "--quiet", "--", "origin", earlier, seconds=NETWORK_SECONDS)
        except GitFailed as error:
            if "couldn't find remote ref" not in error.what:  # else there are none yet
                log(f"warning: earlier results of origin are not known, so more may have to run: {error.what}")
    if last := recall(folder, name):
        log(f"starts from the results of an earlier run ({last[:10]} in {reference(name)})")
    check_out(folder, log, fetch=fetch)
    (folder / READY).write_text(name, encoding="utf-8")
    log(f"works in {folder}, at commit {commit[:10]}")
    return folder


def deployment_of(folder: Path) -> str:
    """Return the name of the deployment whose run a worktree belongs to, or nothing for any other folder."""
    return (folder / READY).read_text(encoding="utf-8") if (folder / READY).exists() else ""


def worktree_of(run: str | None) -> tuple[Path, str]:
    """Return the home of a flow run's worktree, which is the current folder, and the name of its deployment.

    Raises:
        AttuneError: if the current folder is another one, such as somebody's checkout, or if other code is running.
    """
    folder = Path.cwd()
    if not run or folder.name != _short(run) or not (name := deployment_of(folder)):
        fix = "start it through its deployment (docs/retraining.md); in your own checkout: make flow"
        raise AttuneError(f"{folder} was not made for this run, and may be somebody's own", fix)
    if (code := Path(__file__).resolve().parents[2]) != folder:
        raise AttuneError(f"the running flow is of {code}, not of {folder}", "take other folders out of PYTHONPATH")
    return folder.parents[len(WORKTREES.parts)], name


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a worktree, so that no other run cleans it away; an AttuneError if another process holds it."""
    with locked(lock_of(folder)) as free:
        if not free:
            raise AttuneError(f"another process is at work in {folder}", "wait for it, or end it")
        try:
            yield
        finally:
            if (folder / READY).exists():
                (folder / READY).touch()  # its age counts from now on


def one_at_a_time(home: Path) -> AbstractContextManager[None]:
    """Wait until no other run makes or sweeps worktrees here: seconds, or minutes if it fetches."""
    return in_turn(home / WORKTREES / "lock")


def checked(folder: Path, fix: str) -> Path:
    """Return the full path of a project's checkout; an AttuneError with what to do, `fix`, if it is none."""
    folder = folder.resolve()
    if not (folder / ".dvc").is_dir() or git(folder, "rev-parse", "--show-toplevel") != str(folder):
        raise AttuneError(f"{folder} is no checkout of an Attune project", fix)
    return folder


def sweep(home: Path, log: Log, named: str = "", seconds: float = OLD_SECONDS) -> None:
    """Remove worktrees whose names begin with `named`, that nobody holds and that were not used for `seconds`."""
    for folder in sorted((home / WORKTREES).glob(f"{named}*/")):
        used = folder / READY if (folder / READY).exists() else folder
        with locked(lock_of(folder)) as free:
            if free and time.time() - used.stat().st_mtime > seconds:
                remove(home, folder)
                log(f"removed the old worktree {folder}")


def remove(home: Path, folder: Path) -> None:
    """Remove a worktree and its lock; the caller holds the lock or knows that nobody does."""
    with suppress(GitFailed):
        git(home, "worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)  # what Git does not know
    lock_of(folder).unlink(missing_ok=True)


def lock_of(folder: Path) -> Path:
    """Return the lock of a worktree, which stands beside it."""
    return folder.with_name(f"{folder.name}.lock")


def _short(run: str) -> str:
    """Return the end of a flow run's id: its beginning is the time, the same for all runs of a minute (UUIDv7)."""
    return re.sub("[^0-9a-f]", "", run.lower())[-12:]
