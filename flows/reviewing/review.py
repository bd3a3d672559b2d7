"""A review from beginning to end: two commits found, opened, brought to results, compared, and one of them rebuilt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flows.repository.git import git, object_at
from flows.repository.worktrees import checked
from flows.reviewing.changes import PINNED, changes_between, other_versions
from flows.reviewing.commits import LOCK, Commits, find_commits
from flows.reviewing.effect import effect_of
from flows.reviewing.findings import Rebuild, Review
from flows.reviewing.lineage import lineage_of
from flows.reviewing.rebuild import Log, Ran, rebuild, run_pipeline
from flows.reviewing.rebuilt_outs import compare_outs, recorded_machine
from flows.reviewing.revision import Revision
from flows.reviewing.worktrees import lock_at, missing_outs, opened, revision_at
from stages.common.display import listed
from stages.common.errors import AttuneError
from stages.common.params import ReviewParams
from stages.tracking.registry import REGISTRATION
from stages.tracking.store import tracking_uri

NO_CHECKOUT = "run this in the project's folder, a clone made with git"
FEW = 5  # named in a note
OTHER_DATA = "files of data/inbox/ that Git does not keep are not here as dvc.lock was made of them (docs/reviewing.md)"


@dataclass(frozen=True)
class Request:
    """What is to be reviewed, and how."""

    base: str | None = None  # what to compare it with; none: `origin/main`, or what comes nearest to it
    head: str = "HEAD"
    rebuild: bool = True  # run its pipeline again from nothing
    logs: Path = Path("logs") / "review"  # folder for all output of the stages


def review(home: Path, request: Request, log: Log) -> Review:
    """Review a commit of a checkout, in which nothing changes.

    Raises:
        AttuneError: if a commit is none, or the head is no project that can be read.
    """
    home = checked(home, NO_CHECKOUT)
    commits = find_commits(home, request.base, request.head)
    log(f"review of {commits.head_name} ({commits.head[:10]}) against {commits.base_name} ({commits.base[:10]})")
    wanted = {"head": commits.head}
    if object_at(home, f"{commits.base}:{LOCK}"):  # else there is no result of it
        wanted["base"] = commits.base
    if request.rebuild:
        wanted["rebuild"] = commits.head
    with opened(home, wanted, log) as folders:
        return _review(home, folders, commits, request, log)


def _review(home: Path, folders: Mapping[str, Path], commits: Commits, request: Request, log: Log) -> Review:
    committed = revision_at(home, folders["head"], commits.head_name, log)
    missing = missing_outs(committed.folder, committed.lock)
    base, failure = _base(home, folders["base"], commits, request, log) if "base" in folders else (None, "")
    settings = committed.params.review if committed.params else ReviewParams()
    store: str | None = tracking_uri(home)
    if store and store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists():
        store = None  # asking would make the file
    recorded = bool(committed.lock) and not committed.stale
    head, ran = committed, Ran()
    judged = Rebuild("unrecorded" if request.rebuild else "left out", how=OTHER_DATA if request.rebuild else "")
    if request.rebuild and (committed.own_data or missing or not recorded):
        machine, folder = recorded_machine(committed, store, home), folders["rebuild"]
        ran = rebuild(home, folder, committed, request.logs / "rebuild", log, machine.get("threads", ""))
        rebuilt = _made(committed, folder, "rebuilt")
        if recorded and not ran.failed and committed.own_data:
            machines = machine, recorded_machine(rebuilt, None, folder)
            judged = compare_outs(committed, rebuilt, machines, settings.min_agreement)
        head = committed if recorded and (not missing or ran.failed) else rebuilt
    elif not request.rebuild and (missing or not recorded):
        log("the head's results are missing or not of its code, params and data: what has to run is run")
        ran = run_pipeline(committed.folder, committed.graph, request.logs / "head", log)
        head = _made(committed, committed.folder, "run")
    if ran.failed:
        judged = Rebuild("failed", ran.failed, ran.how, last_lines=ran.last_lines)
    elif not recorded:
        judged = Rebuild("unrecorded", next(iter(committed.stale), ""))
    log("comparing")
    uncommitted = ""
    if git(home, "rev-parse", "HEAD") == commits.head:
        uncommitted = git(home, "status", "--porcelain", "--no-renames", "-z")
    gates = head.report(str(REGISTRATION)).get("gates")
    return Review(
        head=head,
        base=base,
        asked_base=commits.base_name,
        behind=commits.behind,
        changes=changes_between(base, head, settings.examples) if base else None,
        effect=effect_of(base, head, settings.examples) if base else None,
        rebuild=replace(judged, seconds=ran.seconds),
        lineage=lineage_of(head, store),
        gates=gates if isinstance(gates, list) else (),
        uncommitted=tuple(entry[3:] for entry in uncommitted.split("\0") if entry),
        notes=(*commits.notes, *_notes(head, missing)),
        failure=failure,
    )


def _base(home: Path, folder: Path, commits: Commits, request: Request, log: Log) -> tuple[Revision | None, str]:
    """Return the base with results, its recorded ones if they are there; or nothing, and what went wrong."""
    try:
        base = revision_at(home, folder, commits.base_name, log)
        if not base.lock:
            return None, f"its {LOCK} names no stage, or holds the marks of a merge"
        if not missing_outs(folder, base.lock):
            return base, ""
        log("the base's results are in neither DVC's cache nor a remote (dvc pull?): what has to run is run")
        ran = run_pipeline(folder, base.graph, request.logs / "base", log)
    except AttuneError as error:
        return None, error.what
    if ran.failed:
        last = f": {ran.last_lines[-1]}" if ran.last_lines else ""
        return None, f"its stage {ran.failed} {ran.how}{last}"
    return replace(_made(base, folder, "run"), stale={}), ""


def _made(committed: Revision, folder: Path, how: Literal["run", "rebuilt"]) -> Revision:
    lock = lock_at(folder)
    return replace(committed, folder=folder, lock=lock, results=how if lock else "none")


def _notes(head: Revision, missing: Sequence[str]) -> Iterator[str]:
    if missing:
        yield f"neither in the commit nor in DVC's cache or remote: {listed(missing, FEW)}"
    if not head.own_data:
        here = head.results in ("run", "rebuilt")
        yield f"{OTHER_DATA}: {'what ran here ran with what is here' if here else 'the results are as recorded'}"
    if others := other_versions(head.folder):
        yield f"{PINNED} of the head pins other versions than are installed, and used, here: {listed(others, FEW)}"
