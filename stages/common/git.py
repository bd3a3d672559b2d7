"""Git: no hooks, no questions, nothing of a caller's repository, and errors for people."""

import os
import re
import subprocess
from pathlib import Path

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.redact import redacted

# A hook such as that of `dvc install` is a person's own: it would check out or push what nobody asked for here.
SETTINGS = (
    *("core.hooksPath=/dev/null", "gc.auto=0", "maintenance.auto=false"),
    *("core.quotePath=false", "log.showSignature=false"),
)
OF_A_CALLER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
NETWORK_SECONDS = 900


class GitFailed(AttuneError):
    """Git ended with an error."""


class NoGit(GitFailed):
    """There is no Git here, no repository, or no commit in it yet: nothing that could be asked."""


def git(root: Path, *arguments: str, seconds: float = 120) -> str:
    """Return what a git command in the folder `root` prints, without the last line end; it may take `seconds`.

    That is nothing where Git ends with 1, without a word: its answer to a question is no.

    Raises:
        GitFailed: with its last lines, without secrets.
        NoGit: if there is nothing that could be asked.
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
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise NoGit(f"git cannot be run in {root}", "install git, and see that the folder is there") from None
    except subprocess.TimeoutExpired:
        raise GitFailed(f"git {arguments[0]} took longer than {seconds:.0f} s", "does its remote answer?") from None
    if done.returncode and (done.returncode != 1 or done.stderr):
        lines = done.stderr.decode(errors="replace").split("\n")[-6:]
        why = display(redacted(" ".join(lines)).strip(), 400, None) or f"status {done.returncode}"
        what = f"git {arguments[0]} failed: {why}"
        no_repository = "not a git repository (or any" in why and not (root / ".git").exists()  # else it is damaged
        raise NoGit(what) if no_repository or "does not have any commits yet" in why else GitFailed(what)
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n")


def object_at(root: Path, name: str) -> str:
    """Return the full name of the object that a revision (`HEAD^{tree}`, `HEAD:dvc.lock`) stands for, or nothing."""
    return git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", name)


def find_commit(root: Path, name: str) -> str:
    """Return the commit that a name stands for; of a remote's branch (`origin/main`) as the remote has it now.

    An AttuneError if it is no name of a commit, or its remote cannot be asked.
    """
    if remote := next((remote for remote in git(root, "remote").split() if name.startswith(f"{remote}/")), None):
        git(root, "fetch", "--quiet", "--no-write-fetch-head", "--", remote, seconds=NETWORK_SECONDS)
    return commit_at(root, name)


def commit_at(root: Path, name: str) -> str:
    """Return the commit that a name stands for here, as it was fetched last; an AttuneError if it is none."""
    commit = object_at(root, f"{name}^{{commit}}")
    if not re.fullmatch("[0-9a-f]{40,64}", commit):  # `^HEAD` stands for all that is not in HEAD
        git(root, "log", "-1")  # where even HEAD is none, Git says why
        fix = shallow(root) or "name a commit, tag or branch (origin/main); `git log --all --oneline` lists commits"
        raise AttuneError(f"{display(name, 60)!r} is no commit of {root.resolve()}", fix)
    return commit


def shallow(root: Path) -> str:
    """Return what to do where a clone lacks the older commits of its history, or nothing."""
    hint = "this clone is a shallow one, so older commits are missing: git fetch --unshallow"
    return hint if git(root, "rev-parse", "--is-shallow-repository") == "true" else ""
