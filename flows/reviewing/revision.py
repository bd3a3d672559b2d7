"""One side of a review: a commit in a worktree of its own, with the outs that its `dvc.lock` names.

The worktrees stand beside the checkout, whose DVC cache they share.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pyarrow import ArrowException  # type: ignore[import-untyped]

from flows.reporting.reports import read_report
from flows.repository.worktree_files import INBOX, Log, check_out, default_remote, furnish
from flows.repository.worktrees import WORKTREES, lock_of, one_at_a_time, remove, sweep
from stages.common.display import Mask
from stages.common.errors import AttuneError
from stages.common.git import git
from stages.common.locks import locked
from stages.common.params import Params, check_params
from stages.common.params.params_file import PARAMS_FILE, read_yaml
from stages.common.pipeline.dvc_status import changes
from stages.common.pipeline.graph import Node, read_graph, read_lock
from stages.common.text.pii import mask_text
from stages.tracking.provenance import LOCK, SCORES
from stages.tracking.registry import STAMP

PREFIX = "review-"  # of worktrees that the next review removes if nobody holds them


@dataclass(frozen=True)
class Revision:
    """A commit and its results.

    These are `recorded` with it; made by the review (`run`, or `rebuilt` with its rebuild), as they were missing or not
    of this code, params and data; or `none`, as the commit is from before the first.
    """

    name: str  # as it was asked for: `origin/main`
    commit: str  # full hash
    subject: str  # first line of the commit's message
    folder: Path  # a worktree with its files
    graph: Mapping[str, Node]  # stages of its dvc.yaml, in order
    lock: Mapping[str, Any]  # stages of the `dvc.lock` of the results; empty: there are none
    data: Mapping[str, Any]  # what its params.yaml says, as read from YAML
    results: Literal["recorded", "run", "rebuilt", "none"] = "recorded"
    stale: Mapping[str, str] = field(default_factory=dict)  # stages recorded of other code, params or data, and why
    own_data: bool = True  # whether what Git does not have of data/inbox/ is here as the results were made of it

    @cached_property
    def params(self) -> Params | None:
        """Its params; None if the code that runs here cannot read them: older code had other keys."""
        try:
            return check_params(self.data)
        except (AttuneError, RecursionError):
            return None

    @property
    def mask(self) -> Mask | None:
        """What hides personal data in texts, unless its params say that its pages show them."""
        if self.params and not self.params.evaluate.mask_pii:
            return None
        return partial(mask_text, phone_region=self.params.clean.pii.phone_region if self.params else None)

    @property
    def model(self) -> str:
        """Digest of the model that its scores are of; nothing if there are none."""
        return str((self.report(SCORES).get("model") or {}).get("digest") or "")

    def report(self, path: str) -> dict[str, Any]:
        """Return a report, such as `reports/scores.json`; nothing if there is none or none that can be read."""
        return read_report(self.folder / path)

    def table(self, path: str) -> pl.DataFrame | None:
        """Return a table of the project, of texts if it is CSV, or None if it is not there or not readable."""
        file, as_text = self.folder / path, path.endswith(".csv")
        try:
            return pl.read_csv(file, infer_schema=False) if as_text else pl.read_parquet(file, use_pyarrow=True)
        except (OSError, ArrowException, pl.exceptions.PolarsError):
            return None

    def hashes(self, stage: str, kind: Literal["deps", "outs"]) -> dict[str, str]:
        """Return the MD5 that `dvc.lock` has for each dependency or out of a stage, by path; folders end in `.dir`."""
        entries = self.lock.get(stage, {}).get(kind, [])
        return {entry["path"]: str(entry.get("md5") or entry.get("hash") or "") for entry in entries}

    def missing_outs(self) -> list[str]:
        """Return the outs that `dvc.lock` names and the worktree lacks; a registry's stamp is never in a worktree."""
        outs = [out["path"] for stage in self.lock.values() for out in stage.get("outs", [])]
        return [path for path in outs if path != str(STAMP) and not (self.folder / path).exists()]


@contextmanager
def open_worktrees(home: Path, commits: Mapping[str, str], log: Log) -> Iterator[dict[str, Path]]:
    """Make a worktree of each commit (by its role: `base`, `head`), and remove them at the end, even after an error."""
    with ExitStack() as stack:
        with one_at_a_time(home):
            sweep(home, log, PREFIX, 0)  # of a review that was killed
            name = f"{PREFIX}{secrets.token_hex(3)}"
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
    lock, data = lock_at(folder), read_yaml(folder / PARAMS_FILE)
    if not lock:
        (folder / LOCK).unlink(missing_ok=True)
    check_out(folder, log)
    commit, subject = git(folder, "rev-parse", "HEAD"), git(folder, "log", "-1", "--format=%s")
    revision = Revision(name, commit, subject, folder, read_graph(folder), lock, data)
    if not lock:
        return replace(revision, results="none")
    if revision.missing_outs() and default_remote(folder):
        check_out(folder, log, fetch=True)
    # What Git does not keep is as it is in the checkout now: that says nothing of the commit.
    recorded = git(folder, "log", "-1", "--format=%H", "--", LOCK)
    in_git = recorded and git(folder, "diff", "--name-only", recorded, "HEAD", "--", str(INBOX))
    made = {path: md5 for stage in lock for path, md5 in revision.hashes(stage, "outs").items()}
    stale, own_data = dict[str, list[str]](), True
    for stage, reasons in changes(list(revision.graph), root=folder, outs=False).items():
        read = revision.hashes(stage, "deps")
        for reason in reasons:
            # an input that another stage makes and that is not there is as it was recorded, where both records agree
            md5 = read.get(reason.what) if reason.how == "deleted" else None
            if Path(reason.what) == INBOX and not in_git:
                own_data = False
            elif reason.kind != "runs always" and not (md5 and md5 == made.get(reason.what)):
                stale.setdefault(stage, []).append(str(reason))
    return replace(revision, stale={stage: "; ".join(why) for stage, why in stale.items()}, own_data=own_data)


def lock_at(folder: Path) -> dict[str, Any]:
    """Return the stages of a worktree's `dvc.lock`; none if it is none, such as one with the marks of a merge."""
    try:
        return read_lock(folder)
    except AttuneError:
        return {}
