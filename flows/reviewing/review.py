"""A review from beginning to end: two commits found, opened, brought to results, compared, and one of them rebuilt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flows.model_versions.versions import DIGEST, find_records
from flows.reporting.reports import SPLIT_FILES, base_model_of
from flows.repository.worktree_files import PINNED, Log
from flows.repository.worktrees import checked, one_at_a_time
from flows.reviewing.changes import changes_between, other_versions
from flows.reviewing.effect import effect_of
from flows.reviewing.findings import Lineage, Rebuild, Review
from flows.reviewing.outs import compare_outs
from flows.reviewing.rebuild import rebuild, recorded_machine, run_pipeline
from flows.reviewing.revision import Revision, lock_at, open_worktrees, revision_at
from stages.common.display import listed
from stages.common.errors import AttuneError
from stages.common.git import GitFailed, commit_at, find_commit, git, object_at, shallow
from stages.common.params import ReviewParams
from stages.tracking.provenance import LOCK, MANIFEST
from stages.tracking.registry import REGISTRATION
from stages.tracking.store import reason_of, tracking_uri

DEFAULT = {"origin/main": "refs/remotes/origin/main", "main": "refs/heads/main"}  # the first that there is
FEW = 5  # named in a note
OTHER_DATA = "files of data/inbox/ that Git does not keep are not here as dvc.lock was made of them (docs/reviewing.md)"


@dataclass(frozen=True)
class Commits:
    """The commits of a review, as full hashes, and their names as they were asked for, in short."""

    base_name: str
    base: str  # the last commit that both histories share; that of `base_name` itself if they share none
    behind: int  # commits of `base_name` that the head does not have
    head_name: str
    head: str
    notes: tuple[str, ...] = ()  # what a reader should know, a line each


def review(home: Path, base: str | None, head: str, logs: Path, log: Log, *, from_nothing: bool = True) -> Review:
    """Review a commit of the checkout `home`, in which nothing changes; all output of the stages goes to `logs`.

    Without a base, it is compared with `origin/main` or what comes nearest. `from_nothing`: run its pipeline again.

    Raises:
        AttuneError: if a commit is none, or the head is no project that can be read.
    """
    home = checked(home, "run this in the project's folder, a clone made with git")
    commits = find_commits(home, base, head)
    log(f"review of {commits.head_name} ({commits.head[:10]}) against {commits.base_name} ({commits.base[:10]})")
    worktrees = {"head": commits.head}
    if object_at(home, f"{commits.base}:{LOCK}"):  # else there is no result of it
        worktrees["base"] = commits.base
    if from_nothing:
        worktrees["rebuild"] = commits.head
    with open_worktrees(home, worktrees, log) as folders:
        return _review(home, folders, commits, logs, log)


def _review(home: Path, folders: Mapping[str, Path], commits: Commits, logs: Path, log: Log) -> Review:
    committed = revision_at(home, folders["head"], commits.head_name, log)
    missing, store = committed.missing_outs(), tracking_uri(home)
    base, failure = _base(home, folders["base"], commits, logs, log) if "base" in folders else (None, "")
    settings = committed.params.review if committed.params else ReviewParams()
    recorded = bool(committed.lock) and not committed.stale
    head, folder = committed, folders.get("rebuild")
    ran = verdict = Rebuild("unrecorded", how=OTHER_DATA) if folder else Rebuild("left out")
    if folder and (committed.own_data or missing or not recorded):
        machine = recorded_machine(committed, store, home)
        ran = rebuild(home, folder, committed, logs / "rebuild", log, machine.get("threads", ""))
        rebuilt = _with_results(committed, folder, "rebuilt")
        if recorded and ran.verdict != "failed" and committed.own_data:
            machines = machine, recorded_machine(rebuilt, None, folder)
            verdict = compare_outs(committed, rebuilt, machines, settings.min_agreement)
        head = committed if recorded and (not missing or ran.verdict == "failed") else rebuilt
    elif not folder and (missing or not recorded):
        log("the head's results are missing or not of its code, params and data: what has to run is run")
        ran = run_pipeline(committed.folder, committed.graph, logs / "head", log)
        head = _with_results(committed, committed.folder, "run")
    if ran.verdict == "failed":
        verdict = ran
    elif not recorded:
        verdict = Rebuild("unrecorded", next(iter(committed.stale), ""))
    log("comparing")
    checked_out = git(home, "rev-parse", "HEAD") == commits.head
    uncommitted = git(home, "status", "--porcelain", "--no-renames", "-z") if checked_out else ""
    gates = head.report(str(REGISTRATION)).get("gates")
    return Review(
        head=head,
        base=base,
        asked_base=commits.base_name,
        behind=commits.behind,
        changes=changes_between(base, head, settings.examples) if base else None,
        effect=effect_of(base, head, settings.examples) if base else None,
        rebuild=replace(verdict, seconds=ran.seconds),
        lineage=lineage_of(head, store),
        gates=gates if isinstance(gates, list) else (),
        uncommitted=tuple(entry[3:] for entry in uncommitted.split("\0") if entry),
        notes=(*commits.notes, *_notes(head, missing)),
        failure=failure,
    )


def _base(home: Path, folder: Path, commits: Commits, logs: Path, log: Log) -> tuple[Revision | None, str]:
    """Return the base with results, its recorded ones if they are there; or nothing, and what went wrong."""
    try:
        base = revision_at(home, folder, commits.base_name, log)
        if not base.lock:
            return None, f"its {LOCK} names no stage, or holds the marks of a merge"
        if not base.missing_outs():
            return base, ""
        log("the base's results are in neither DVC's cache nor a remote: what has to run is run")
        ran = run_pipeline(folder, base.graph, logs / "base", log)
    except AttuneError as error:
        return None, error.what
    if ran.verdict == "failed":
        last_line = f": {ran.last_lines[-1]}" if ran.last_lines else ""
        return None, f"its stage {ran.first} {ran.how}{last_line}"
    return replace(_with_results(base, folder, "run"), stale={}), ""


def _with_results(committed: Revision, folder: Path, how: Literal["run", "rebuilt"]) -> Revision:
    lock = lock_at(folder)
    return replace(committed, folder=folder, lock=lock, results=how if lock else "none")


def _notes(head: Revision, missing: Sequence[str]) -> Iterator[str]:
    if missing:
        yield f"neither in the commit nor in DVC's cache or remote: {listed(missing, FEW)}"
    if not head.own_data:
        ran_here = head.results in ("run", "rebuilt")
        yield f"{OTHER_DATA}: {'what ran here ran with what is here' if ran_here else 'the results are as recorded'}"
    if others := other_versions(head.folder):
        yield f"{PINNED} of the head pins other versions than are installed, and used, here: {listed(others, FEW)}"


def lineage_of(head: Revision, store: str) -> Lineage:
    """Return where a revision's model comes from, and why MLflow could not be asked, which takes seconds at most."""
    manifest, splits = head.report(MANIFEST), head.hashes("clean", "outs")
    origin, weights = base_model_of(manifest)
    facts = [("commit", head.commit), ("its message", head.subject)]
    facts += [(str(file.get("origin", "")), str(file.get("sha256", ""))) for file in manifest.get("sources") or []]
    facts += [(path, splits[path]) for path in SPLIT_FILES if path in splits]
    facts += [("base model", origin), ("its weights", weights), ("model", head.model)]
    problem = ""
    if DIGEST.fullmatch(head.model):
        try:
            run, versions = find_records(store, head.model)
            facts += [("MLflow run", run.info.run_id if run else ""), *(("registered as", line) for line in versions)]
        except FileNotFoundError:
            pass  # nothing was recorded here yet
        except Exception as error:  # of whatever kind: a review does without
            problem = f"MLflow could not be asked: {reason_of(error)}"
    return tuple((what, fact) for what, fact in facts if fact), problem


def find_commits(home: Path, base: str | None, head: str) -> Commits:
    """Find both commits; a branch of a remote as that has it now, or as it was fetched last where it does not answer.

    Without a base it is `origin/main`, else `main`; where that is the head itself, the commit before the head.

    Raises:
        AttuneError: if one of them is no commit.
    """
    notes: list[str] = []
    with one_at_a_time(home):  # two that fetch at once would get into each other's way
        head_commit = _find_commit(home, head, notes)
        name = base if base is not None else next((name for name, ref in DEFAULT.items() if object_at(home, ref)), head)
        base_commit = _find_commit(home, name, notes)
    parent = object_at(home, f"{head_commit}~1^{{commit}}")
    if base is None and base_commit == head_commit and parent:
        notes.append(f"{name} is the head itself, so the head is compared with the commit before it")
        name, base_commit = f"{head}~1", parent
    shared = git(home, "merge-base", base_commit, head_commit)
    if not shared:
        notes.append(f"{name} and {head} share no history: compared with {name} itself")
    if shared == head_commit:
        notes.append(f"the head is in {name} already: there is nothing in it that could differ")
    if hint := shallow(home):
        notes.append(hint)
    behind = int(git(home, "rev-list", "--count", f"{head_commit}..{base_commit}")) if shared else 0
    short = ("rev-parse", "--verify", "--quiet", "--abbrev-ref", "--end-of-options")  # of HEAD, its branch
    names, unique = [git(home, *short, each) or each for each in (name, head)], tuple(dict.fromkeys(notes))
    return Commits(names[0], shared or base_commit, behind, names[1], head_commit, unique)


def _find_commit(home: Path, name: str, notes: list[str]) -> str:
    try:
        return find_commit(home, name)
    except GitFailed as error:
        notes.append(f"{name} is as it was fetched last: {error.what}")
        return commit_at(home, name)
