"""The files of a worktree that Git does not have: DVC's cache and what is in it, downloads, people's own data."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from stages.common.display import display, visible
from stages.common.errors import AttuneError
from stages.common.git import git
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import WORK
from stages.common.redact import redacted

INBOX = Path("data/inbox")
PINNED = "constraints.txt"
WRITTEN = (".dvc/config.local", ".dvc/cache", ".dvc/tmp", f"{WORK}/downloads", str(INBOX), "dvc.lock", "params.yaml")
DVC_SECONDS = 6 * 3600

Log = Callable[[str], None]


def furnish(home: Path, folder: Path, log: Log) -> None:
    """Give a new worktree the DVC cache and remotes of its home, the downloads, and the data that Git does not have.

    Raises:
        AttuneError: if the commit is of no DVC project or has a link where something is to be written, or a file of
            `data/inbox/` is being written.
    """
    from dvc.config import Config, ConfigError, merge

    if not (folder / ".dvc").is_dir():
        raise AttuneError("the commit holds no DVC project", "take a later one")
    # a link there, say to a larger disk: all worktrees would write to it at once
    for path in map(Path, (*WRITTEN, *(out for node in read_graph(folder).values() for out in node.outs))):
        if link := next((part for part in (path, *path.parents) if (folder / part).is_symlink()), None):
            what = f"the commit has {display(str(link), 300, None)} as a link, and what it leads to would be written"
            raise AttuneError(what, "commit the file or folder itself")
    try:
        at_home, config = Config(str(home / ".dvc")), Config(str(folder / ".dvc"), validate=False)
    except ConfigError as error:
        what = f"DVC cannot read {home}: {display(redacted(str(error)), 300, None)}"
        raise AttuneError(what, "correct .dvc/config or .dvc/config.local there") from None
    with config.edit("local", validate=False) as local:  # relative paths come out as they hold at home
        for level in ("repo", "local"):
            merge(local, at_home.load_one(level))
        merge(local, {"cache": {"dir": str(at_home.get("cache", {}).get("dir") or home / ".dvc" / "cache")}})
    (folder / ".dvc" / "config.local").chmod(0o600)  # it may hold the login of a remote
    downloads = home / WORK / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    (folder / WORK).mkdir(exist_ok=True)
    (folder / WORK / "downloads").symlink_to(downloads)
    _copy_inbox(home, folder, log)
    pinned = [path.read_bytes() if path.exists() else b"" for path in (home / PINNED, folder / PINNED)]
    if pinned[0] != pinned[1]:
        log(f"warning: {PINNED} of the commit asks for other versions than the checkout has, which are in use")


def check_out(folder: Path, log: Log, *, fetch: bool = False) -> None:
    """Bring the files that `dvc.lock` (if there is one) and the commit's `*.dvc` name, as far as the cache has them.

    The latter are people's own data: DVC's remote is asked for what the cache lacks of them; with `fetch`, of all.
    """
    targets = _targets(folder)
    if fetch and default_remote(folder) and (problem := run_dvc(folder, "fetch")):
        log(f"warning: DVC's remote did not give everything, so more has to run: {problem}")
    if targets and (problem := run_dvc(folder, "checkout", "--force", "--allow-missing", *targets)):
        log(f"warning: not all is checked out, so more has to run: {problem}")
    missing = [name for name in _pointers(folder) if not (folder / name).with_suffix("").exists()]
    if missing and default_remote(folder) and (problem := run_dvc(folder, "pull", *missing)):
        log(f"warning: DVC's remote did not give {visible(', '.join(missing))}: {problem}")


def push_all(folder: Path) -> str:
    """Send what `dvc.lock` and the commit's `*.dvc` name to DVC's default remote; return what went wrong, if any."""
    remote, targets = default_remote(folder), _targets(folder)
    if remote and targets and (problem := run_dvc(folder, "push", *targets)):
        return f"nothing or not all was pushed to the DVC remote {display(remote, 40, None)}: {problem}"
    return ""


def default_remote(folder: Path) -> str:
    """Return the name of DVC's default remote, or nothing."""
    from dvc.config import Config

    return str(Config(str(folder / ".dvc"), validate=False).get("core", {}).get("remote") or "")


def run_dvc(folder: Path, *arguments: str) -> str:
    """Run a `dvc` command; return what went wrong, in a line without secrets, or nothing."""
    command = [sys.executable, "-m", "dvc", *arguments[:1], "--quiet", *arguments[1:]]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=DVC_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"dvc {arguments[0]} took longer than {DVC_SECONDS // 3600} hours"
    lines = done.stderr.decode(errors="replace").split("\n")
    errors = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if line.strip()][-1:]
    return display(redacted(" ".join(errors[:3])), 400, None) or f"status {done.returncode}" if done.returncode else ""


def _pointers(folder: Path) -> list[str]:
    """Return the `*.dvc` files of a worktree's commit."""
    return [name for name in git(folder, "ls-files", "-z", "--", "*.dvc").split("\0") if name]


def _targets(folder: Path) -> list[str]:
    """Return what to ask DVC for by name: it does not look for `data/inbox/*.dvc` where Git ignores `/data/*`."""
    return [*(["dvc.yaml"] if (folder / "dvc.lock").exists() else []), *_pointers(folder)]


def _copy_inbox(home: Path, folder: Path, log: Log) -> None:
    """Copy people's own data as they are now, also those in a Git repository in the inbox.

    Files that the commit has, or leaves to DVC by a `*.dvc` file, stay those of the commit.
    """
    tracked = set(git(home, "ls-files", "-z", "--", str(INBOX)).split("\0"))
    by_dvc = {(folder / name).with_suffix("") for name in _pointers(folder)}
    for path, folders, files in os.walk(home / INBOX):
        folders[:] = sorted(name for name in folders if name != ".git")
        for source in (Path(path, name) for name in sorted({*files, *folders} - {".git"})):
            name, linked = str(source.relative_to(home)), source.is_symlink()
            target = folder / name
            if name in tracked or (source.is_dir() and not linked) or by_dvc & {target, *target.parents}:
                continue
            if os.path.lexists(target) or not (linked or source.is_file()):
                log(f"warning: {display(name, 300, None)} is not copied: the commit has it, or it is no file")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if linked:  # what it leads to may be large
                target.symlink_to(source.parent.resolve() / source.readlink())
                log(f"{display(name, 300, None)} is a link: its file is read where it is")
                continue
            before = source.stat()
            shutil.copyfile(source, target)
            after = source.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                fix = "write it elsewhere, and move it there when it is complete"
                raise AttuneError(f"{display(name, 300, None)} is being written", fix)
