"""A review from beginning to end: two commits found, opened, brought to results, compared, and one of them rebuilt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from flows.git import git, object_at
from flows.provenance.lineage import lineage_of
from flows.reviewing.changes import PINNED, changes_between, other_versions
from flows.reviewing.commits import LOCK, Commits, conflicts, find_commits
from flows.reviewing.costs import measured
from flows.reviewing.effect import effect_of
from flows.reviewing.findings import Effect, Rebuild, Review
from flows.reviewing.rebuild import Log, Ran, Rebuilt, rebuild, run_pipeline
from flows.reviewing.rebuilt_outs import compare_outs
from flows.reviewing.revision import Revision
from flows.reviewing.tolerance import Environments, recorded_environment
from flows.reviewing.worktrees import lock_at, missing_outs, opened, revision_at
from flows.worktree import checked
from stages.common.errors import AttuneError
from stages.common.params.review import ReviewParams
from stages.common.shown import listed
from stages.common.tracking.registry import REGISTRATION
from stages.common.tracking.store import tracking_uri

NO_CHECKOUT = "run this in the project's folder, a clone made with git"
FEW = 5  # named in a note
OTHER_DATA = "files of data/inbox/ that Git does not keep are not here as dvc.lock was made of them (docs/reviewing.md)"


@dataclass(frozen=True)
class Request:
    """What is to be reviewed, and how.

    Args:
        base: what to compare it with; none: `origin/main`, or what comes nearest to it.
        head: the commit, tag or branch that is reviewed.
        rebuild: run its pipeline again from nothing.
        keep: leave the worktrees.
        logs: folder for all output of the stages.
    """

    base: str | None = None
    head: str = "HEAD"
    rebuild: bool = True
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
    missing = missing_outs(committed.folder, committed.lock)
    settings, notes = _settings(committed)
    base, failure = _base(home, folders["base"], commits, request, log) if "base" in folders else (None, "")
    head, store, usable = committed, _store(home), bool(committed.lock) and not committed.stale
    judged = Rebuild("left out")
    if request.rebuild and usable and not missing and not committed.own_data:
        log(f"no rebuild: {OTHER_DATA}")
        judged = Rebuild("unrecorded", how=OTHER_DATA)
    elif request.rebuild:
        recorded = recorded_environment(committed, store, home)
        rebuilt = rebuild(
            home, folders["rebuild"], committed, request.logs / "rebuild", log, recorded.get("threads", "")
        )
        head, notes = _shown_head(committed, missing, rebuilt), [*notes, *rebuilt.notes]
        here = Environments(recorded, recorded_environment(rebuilt.revision, None, rebuilt.revision.folder))
        judged = _unusable(committed, rebuilt.ran) or (
            compare_outs(committed, rebuilt.revision, here, settings.min_agreement)
            if committed.own_data
            else Rebuild("unrecorded", how=OTHER_DATA)
        )
        judged = replace(judged, seconds=rebuilt.ran.seconds)
    elif missing or not usable:
        log("the head's results are missing or not of its code, params and data: what has to run is run")
        ran = run_pipeline(committed.folder, committed.graph, request.logs / "head", "head", log)
        head, judged = _made(committed, committed.folder, "run"), _unusable(committed, ran) or judged
    log("comparing")
    in_the_way, unknown = conflicts(home, commits.asked, commits.head)
    return Review(
        head=head,
        base=base,
        asked_base=commits.base_name,
        behind=commits.behind,
        changes=changes_between(base, head, settings.examples) if base else None,
        effect=_effect(base, head, settings.examples) if base else None,
        rebuild=judged,
        lineage=lineage_of(head, store),
        gates=_gates(head),
        conflicts=in_the_way,
        uncommitted=_uncommitted(home, commits.head),
        notes=(*commits.notes, *notes, *_notes(head, missing), *filter(None, [unknown])),
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


def _shown_head(committed: Revision, missing: Sequence[str], rebuilt: Rebuilt) -> Revision:
    """Return the head as it is shown: with the results that its commit recorded, or those of the rebuild."""
    usable = committed.lock and not committed.stale
    if usable and (not missing or rebuilt.ran.failed):
        return committed
    return _made(committed, rebuilt.revision.folder, "rebuilt")


def _made(committed: Revision, folder: Path, how: Literal["run", "rebuilt"]) -> Revision:
    lock = lock_at(folder)
    return replace(committed, folder=folder, lock=lock, results=how if lock else "none")


def _unusable(committed: Revision, ran: Ran) -> Rebuild | None:
    """Return why there is nothing to compare a run with, or that it failed; None: there is a record of this commit."""
    if ran.failed:
        return Rebuild("failed", ran.failed, ran.how, last_lines=ran.last_lines)
    if not committed.lock or committed.stale:
        return Rebuild("unrecorded", next(iter(committed.stale), ""))
    return None


def _effect(base: Revision, head: Revision, examples: int) -> Effect | None:
    effect = effect_of(base, head, examples)
    if effect is None:
        return None
    costs, missing = measured(base, head)
    return replace(effect, figures=(*effect.figures, *costs), missing=(*effect.missing, *missing))


def _settings(head: Revision) -> tuple[ReviewParams, list[str]]:
    try:
        return ReviewParams.model_validate(head.data.get("review") or {}), []
    except ValidationError:
        return ReviewParams(), ["the section review of the head's params.yaml is not understood: defaults are used"]


def _gates(head: Revision) -> tuple[Mapping[str, Any], ...]:
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
    printed = git(home, "status", "--porcelain", "--no-renames", "-z", environment={"GIT_OPTIONAL_LOCKS": "0"})
    return tuple(entry[3:] for entry in printed.split("\0") if entry)


def _notes(head: Revision, missing: Sequence[str]) -> Iterator[str]:
    if missing:
        yield f"neither in the commit nor in DVC's cache or remote: {listed(missing, FEW)}"
    if not head.own_data:
        here = head.results in ("run", "rebuilt")
        yield f"{OTHER_DATA}: {'what ran here ran with what is here' if here else 'the results are as recorded'}"
    if others := other_versions(head.folder):
        yield f"{PINNED} of the head pins other versions than are installed, and used, here: {listed(others, FEW)}"
