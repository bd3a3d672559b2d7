"""A review from beginning to end: two commits found, opened, brought to results, compared, and one of them rebuilt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.git import git, object_at
from flows.provenance.lineage import lineage_of
from flows.reviewing.changed.changes import changes_between
from flows.reviewing.commits import Commits, find_commits
from flows.reviewing.compared.orphans import orphans
from flows.reviewing.compared.outs import check_recorded, compare_outs
from flows.reviewing.compared.tolerance import Environments, model_of, recorded_environment
from flows.reviewing.conflicts import LOCK, conflict_with
from flows.reviewing.effects.costs import measured
from flows.reviewing.effects.effect import effect_of
from flows.reviewing.findings import Effect, OutCheck, Rebuild, Review
from flows.reviewing.pipeline_run import Log, Ran, run_pipeline
from flows.reviewing.rebuild import Rebuilt, rebuild
from flows.reviewing.revision import Revision
from flows.reviewing.worktrees import lock_at, missing_outs, opened, revision_at
from flows.scheduled.place import checked
from flows.scheduled.worktree_files import PINNED
from stages.common.errors import AttuneError
from stages.common.params.review import ReviewParams
from stages.common.tracking.registry import REGISTRATION
from stages.common.tracking.store import tracking_uri

NO_CHECKOUT = "run this in the project's folder, a clone made with git"
FEW = 5  # named in a note
OTHER_DATA = "files of data/inbox/ that Git does not keep are not here as dvc.lock was made of them (docs/reviewing.md)"


@dataclass(frozen=True)
class Request:
    """What is to be reviewed, and how.

    Args:
        base: what to hold it against; none: `origin/main`, or what comes nearest to it.
        head: the commit, tag or branch that is reviewed.
        rebuild: run its pipeline again from nothing.
        venv: do that in a virtual environment of its own, from its constraints.txt.
        keep: leave the worktrees.
        logs: folder for all that the stages say.
    """

    base: str | None = None
    head: str = "HEAD"
    rebuild: bool = True
    venv: bool = False
    keep: bool = False
    logs: Path = Path("logs") / "review"


def review(home: Path, request: Request, log: Log) -> Review:
    """Review a commit of a checkout, in which nothing changes.

    Args:
        home: the checkout.
        request: what to do.
        log: gets lines of progress, and what a person should know.

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
    with opened(home, wanted, log, keep=request.keep) as folders:
        found = _review(home, folders, commits, request, log)
        if request.keep:
            log(f"left for a look: {', '.join(map(str, folders.values()))} (git worktree remove --force ends them)")
        return found


def _review(home: Path, folders: Mapping[str, Path], commits: Commits, request: Request, log: Log) -> Review:
    committed = revision_at(home, folders["head"], commits.head_name, log)
    tampering = tuple(check for check in check_recorded(committed) if check.verdict == "different")
    missing = missing_outs(committed.folder, committed.lock)
    settings, notes = _settings(committed)
    base, failure = _base(home, folders["base"], commits, request, log) if "base" in folders else (None, "")
    rebuilt, ran, environments = None, Ran(), Environments({}, {})
    usable = bool(committed.lock) and not committed.stale
    if request.rebuild and usable and not missing and not committed.own_data:
        log(f"no rebuild: {OTHER_DATA}")
        head = committed
    elif request.rebuild:
        recorded = recorded_environment(model_of(committed), _store(home), home)
        threads = recorded.get("threads", "")
        logs = request.logs / "rebuild"
        rebuilt = rebuild(home, folders["rebuild"], committed, logs, log, threads=threads, venv=request.venv)
        own = recorded_environment(model_of(rebuilt.revision), None, rebuilt.revision.folder)
        environments = Environments(recorded, own)
        head, notes = _after(committed, missing, rebuilt), [*notes, *rebuilt.notes]
    elif missing or not usable:
        log("the head's results are missing or not of its code, params and data: what has to run is run")
        ran = run_pipeline(committed.folder, committed.graph, request.logs / "head", "head", log)
        head = _made(committed, committed.folder, "run")
    else:
        head = committed
    log("comparing")
    agreement = _agreement(settings, base)
    judged = _judged(committed, tampering, rebuilt, ran, environments, agreement, request.rebuild)
    conflict, unknown = conflict_with(home, commits.asked, commits.head)
    return Review(
        head=head,
        base=base,
        asked_base=commits.base_name,
        behind=commits.behind,
        changes=changes_between(base, head, settings.examples) if base else None,
        effect=_effect(base, head, settings.examples) if base else None,
        rebuild=replace(judged, venv=request.venv and request.rebuild),
        lineage=lineage_of(head, _store(home)),
        gates=_gates(head),
        conflict=conflict,
        uncommitted=_uncommitted(home, commits.head),
        notes=(*commits.notes, *notes, *_notes(home, head, missing, request), *filter(None, [unknown])),
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
        ran = run_pipeline(folder, base.graph, request.logs / "base", "base", log)
    except AttuneError as error:
        return None, error.what
    if ran.failed:
        last = f": {ran.last_lines[-1]}" if ran.last_lines else ""
        return None, f"its stage {ran.failed} {ran.how}{last}"
    return replace(_made(base, folder, "run"), stale={}), ""


def _after(committed: Revision, missing: Sequence[str], rebuilt: Rebuilt) -> Revision:
    """Return the head as it is shown: with the results that its commit recorded, or those of the rebuild."""
    usable = committed.lock and not committed.stale
    if usable and (not missing or rebuilt.ran.failed):
        return committed
    return _made(committed, rebuilt.revision.folder, "rebuilt")


def _made(committed: Revision, folder: Path, how: Any) -> Revision:
    lock = lock_at(folder)
    return replace(committed, folder=folder, lock=lock, results=how if lock else "none")


def _effect(base: Revision, head: Revision, examples: int) -> Effect | None:
    effect = effect_of(base, head, examples)
    if effect is None:
        return None
    costs, missing = measured(base, head)
    return replace(effect, costs=costs, missing=(*effect.missing, *missing))


def _judged(
    committed: Revision,
    tampering: Sequence[OutCheck],
    rebuilt: Rebuilt | None,
    ran: Ran,
    environments: Environments,
    min_agreement: float,
    rebuild_asked: bool,
) -> Rebuild:
    """Return whether the commit's results can be believed; what is wrong in itself comes before what differs."""
    ran = rebuilt.ran if rebuilt else ran
    if ran.failed:
        found = Rebuild("failed", ran.failed, ran.how, last_lines=ran.last_lines)
    elif not committed.lock:
        found = Rebuild("unrecorded")
    elif committed.stale:
        found = Rebuild("unrecorded", next(iter(committed.stale)))
    elif rebuild_asked and not committed.own_data:
        found = Rebuild("unrecorded", how=OTHER_DATA)
    elif rebuilt:
        found = compare_outs(committed, rebuilt.revision, environments, min_agreement)
    else:
        found = Rebuild("left out")
    if tampering:
        worst, paths = tampering[0], {check.path for check in tampering}
        outs = (*tampering, *(check for check in found.outs if check.path not in paths))
        found = replace(found, verdict="tampered", first=worst.stage, how=f"{worst.path}: {worst.how}", outs=outs)
    return replace(found, seconds=rebuilt.ran.seconds) if rebuilt else found


def _agreement(settings: ReviewParams, base: Revision | None) -> float:
    """Return what both sides ask for: a commit does not lower what it is measured by."""
    return max(settings.min_agreement, _settings(base)[0].min_agreement if base else 0.0)


def _settings(head: Revision) -> tuple[ReviewParams, list[str]]:
    try:
        return ReviewParams.model_validate(head.data.get("review") or {}), []
    except ValidationError:
        return ReviewParams(), ["the section review of the head's params.yaml is not understood: defaults are used"]


def _gates(head: Revision) -> tuple[Mapping[str, Any], ...]:
    if str(REGISTRATION) in orphans(head):  # it was judged by nobody
        return ()
    gates = head.report(str(REGISTRATION)).get("gates")
    return tuple(gate for gate in gates if isinstance(gate, Mapping)) if isinstance(gates, list) else ()


def _store(home: Path) -> str | None:
    """Return where the project's MLflow store is; nothing for a file that is not there, which asking would make."""
    uri = tracking_uri(home)
    kind, file, path = uri.partition("sqlite:///")
    return None if file and not kind and not Path(path).exists() else uri


def _uncommitted(home: Path, head: str) -> tuple[str, ...]:
    """Return the files of the checkout that differ from its HEAD, if that is what is reviewed."""
    if git(home, "rev-parse", "HEAD") != head:
        return ()
    # without its locks, which would have Git write the index anew
    told = git(home, "status", "--porcelain", "--no-renames", "-z", environment={"GIT_OPTIONAL_LOCKS": "0"})
    return tuple(entry[3:] for entry in told.split("\0") if entry)


def _notes(home: Path, head: Revision, missing: Sequence[str], request: Request) -> Iterator[str]:
    if missing:
        yield f"neither in the commit nor in DVC's cache or remote: {_few(missing)}"
    if alone := orphans(head):
        yield f"made by no stage of dvc.yaml, and believed by nobody: {_few(alone)}"
    if not head.own_data:
        made = (
            "what ran here ran with what is here"
            if head.results in ("run", "rebuilt")
            else "the results are as recorded"
        )
        yield f"{OTHER_DATA}: {made}"
    others = [] if request.venv else list(_other_versions(head.folder / PINNED))
    if others:
        yield f"{PINNED} of the head pins other versions than are installed, and used, here (--venv): {_few(others)}"


def _other_versions(pinned: Path) -> Iterator[str]:
    """Yield packages that are installed in another version than is pinned."""
    lines = pinned.read_text(encoding="utf-8", errors="replace").split("\n") if pinned.exists() else []
    for line in lines:
        name, equal, asked = line.partition("#")[0].partition(";")[0].strip().partition("==")
        try:
            if equal and (here := version(name.strip())).partition("+")[0] != asked.strip().partition("+")[0]:
                yield f"{name.strip()} {asked.strip()} (here {here})"
        except (PackageNotFoundError, ValueError):
            continue  # one of those that only tests need, or no name


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return f"{', '.join(names[:FEW])}{more}"
