"""Git for flows: no hooks, no questions, nothing of a caller's repository, and errors for people."""

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.redact import redacted

# A hook such as that of `dvc install` is a person's own: it would check out or push what nobody asked for here.
SETTINGS = ("core.hooksPath=/dev/null", "gc.auto=0", "maintenance.auto=false", "core.quotePath=false")
OF_A_CALLER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
NETWORK_SECONDS = 900


class GitFailed(AttuneError):
    """Git ended with an error."""


class GitRefuses(AttuneError):
    """Git does not work in this folder at all, so that its silence is no answer."""


def git(root: Path, *arguments: str, seconds: float = 120) -> str:
    """Return what a git command in the folder `root` prints, without the last line end; it may take `seconds`.

    Raises:
        GitFailed: with its last lines, without secrets.
        GitRefuses: if the checkout is another user's, or belongs to a repository that is not there.
    """
    options = [part for setting in SETTINGS for part in ("-c", setting)]
    environment = {name: value for name, value in os.environ.items() if name not in OF_A_CALLER}
    # without optional locks: `git status` would rewrite the index
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *options, *arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise GitFailed(f"git cannot be run in {root}", "install git, and see that the folder is there") from None
    except subprocess.TimeoutExpired:
        raise GitFailed(f"git {arguments[0]} took longer than {seconds:.0f} s", "does its remote answer?") from None
    if done.returncode:
        why = (
            display(redacted(" ".join(done.stderr.split("\n")[-6:])).strip(), 400, None) or f"status {done.returncode}"
        )
        if "dubious ownership" in done.stderr or "not a git repository: " in done.stderr:
            raise GitRefuses(f"git refuses to work in {root.resolve()}: {why}", "do as it says, or work as the owner")
        raise GitFailed(f"git {arguments[0]} failed: {why}")
    return done.stdout.removesuffix("\n")


def asked(root: Path, *arguments: str) -> str:
    """Return what a git command prints, or nothing if it fails; GitRefuses if Git does not work here at all."""
    with suppress(GitFailed):
        return git(root, *arguments)
    return ""


def succeeds(root: Path, *arguments: str) -> bool:
    """Return whether a git command succeeds."""
    with suppress(GitFailed):
        git(root, *arguments)
        return True
    return False


def object_at(root: Path, name: str) -> str:
    """Return the full name of the object that a revision (`HEAD^{tree}`, `HEAD:dvc.lock`) stands for, or nothing."""
    return asked(root, "rev-parse", "--verify", "--quiet", "--end-of-options", name)


def find_commit(root: Path, name: str) -> str:
    """Return the commit that a name stands for; of a remote's branch (`origin/main`) as the remote has it now.

    Raises:
        AttuneError: if it is no name of a commit, or its remote cannot be asked.
    """
    if remote := next((remote for remote in asked(root, "remote").split() if name.startswith(f"{remote}/")), None):
        git(root, "fetch", "--quiet", "--no-write-fetch-head", "--", remote, seconds=NETWORK_SECONDS)
    commit = object_at(root, f"{name}^{{commit}}")
    if not re.fullmatch("[0-9a-f]{40,64}", commit):  # `^HEAD` stands for all that is not in HEAD
        fix = "name a commit, tag or branch (origin/main); `git log --all --oneline` lists commits"
        raise AttuneError(f"{display(name, 60)!r} is no commit of {root}", fix)
    return commit
