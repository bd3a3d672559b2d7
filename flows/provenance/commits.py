"""Which commits know a model: those whose `dvc.lock` (or report of scores) has its very hash."""

import re
from dataclasses import dataclass
from pathlib import Path

from flows.git import NETWORK_SECONDS, GitFailed, asked, git, object_at
from flows.told.redact import redacted
from stages.common.errors import AttuneError
from stages.common.shown import shown

HASH = re.compile(r"[0-9a-f]{32,64}(\.dir)?")
MOST = 20


@dataclass(frozen=True)
class Commit:
    """A commit.

    Args:
        hash: in full.
        subject: first line of its message.
        time: when it was made, ISO 8601.
    """

    hash: str
    subject: str
    time: str


def commits_that_record(root: Path, path: str, digest: str) -> list[Commit]:
    """Return the commits, of all branches and Attune's own references, that brought a hash into a file; latest first.

    Args:
        root: a clone.
        path: of the file: `dvc.lock`.
        digest: of the model.
    """
    if not HASH.fullmatch(digest):
        return []
    listed = asked(root, "log", "--all", f"-S{digest}", "--format=%H%x09%cI%x09%s", f"--max-count={MOST}", "--", path)
    found = [line.split("\t", 2) for line in listed.split("\n") if line.count("\t") >= 2]
    return [Commit(one, subject, time) for one, time, subject in found if _has(root, one, path, digest)]


def subject_of(root: Path, commit: str) -> str:
    """Return the first line of a commit's message; nothing if this clone does not have the commit."""
    return asked(root, "log", "-1", "--format=%s", "--end-of-options", commit) if commit else ""


def bring(root: Path, commit: str) -> None:
    """Have a commit in this clone, from origin if need be.

    Raises:
        AttuneError: if origin does not have it or cannot be asked.
    """
    if object_at(root, f"{commit}^{{commit}}"):
        return
    shallow = asked(root, "rev-parse", "--is-shallow-repository") == "true"
    why = "there is no remote of the name origin"
    if "origin" in asked(root, "remote").split("\n"):
        options = ("--quiet", "--no-write-fetch-head", "--no-tags", "--refmap=", *(("--depth=1",) if shallow else ()))
        try:
            git(root, "fetch", *options, "--", "origin", commit, seconds=NETWORK_SECONDS)
        except GitFailed as error:
            why = shown(redacted(error.what), 300)
    if not object_at(root, f"{commit}^{{commit}}"):
        raise AttuneError(
            f"neither this clone nor origin has the commit {commit} ({why})",
            "fetch it from a clone that has it: git fetch OTHER-CLONE " + commit,
        )


def _has(root: Path, commit: str, path: str, digest: str) -> bool:
    return digest in asked(root, "show", f"{commit}:{path}")
