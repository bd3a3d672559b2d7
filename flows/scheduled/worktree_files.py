"""What a run's worktree needs besides the files of its commit: DVC's cache, downloads, people's own data."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.git import git
from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.redact import redacted
from stages.common.shown import shown, visible
from stages.common.stage import WORK

INBOX = Path("data/inbox")
PINNED = "constraints.txt"
SHARED = ("downloads",)  # what stages fetch once, for all runs
WRITTEN = (".dvc/config.local", ".dvc/cache", ".dvc/tmp", f"{WORK}/downloads", str(INBOX), "dvc.lock", "params.yaml")
DVC_SECONDS = 6 * 3600
LONGEST_SHOWN = 300  # characters of a name in the log
TRIES = 5  # to copy a file while nobody writes it

Log = Callable[[str], None]


def furnish(home: Path, folder: Path, log: Log) -> None:
    """Give a new worktree the DVC cache and remotes of its home, the downloads, and the data that Git does not have.

    Args:
        home: a checkout.
        folder: a worktree of it.
        log: gets what a person should know.

    Raises:
        AttuneError: if the commit is of no DVC project or has a link where something is to be written, or a file of
            `data/inbox/` is being written all the time.
    """
    if not (folder / ".dvc").is_dir():
        raise AttuneError("the commit holds no DVC project", "take a later one")
    _check_links(folder)
    _share_cache(home, folder)
    (folder / WORK).mkdir(exist_ok=True)
    for name in SHARED:
        (home / WORK / name).mkdir(parents=True, exist_ok=True)
        (folder / WORK / name).symlink_to(home / WORK / name)
    _copy_inbox(home, folder, log)
    if _read(home / PINNED) != _read(folder / PINNED):
        log(f"warning: {PINNED} of the commit asks for other versions than the checkout has, which are in use")


def check_out(folder: Path, log: Log, *, made: bool = True) -> None:
    """Bring the files that `dvc.lock` and the commit's `*.dvc` name, as far as the cache has them.

    With `made` false only the latter, which are people's own data.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            for targets in _targets(folder)[0 if made else 1 :]:
                repo.checkout([str(folder / name) for name in targets] or None, force=True, allow_missing=True)
    except DvcException as error:
        log(f"warning: not all is checked out, so more has to run: {shown(redacted(str(error)), 300)}")
    missing = [one for one in pointers(folder) if not all(path.exists() for path in _outs(folder, one))]
    if missing and default_remote(folder) and (problem := run_dvc(folder, "pull", *missing)):
        log(f"warning: DVC's remote did not give {visible(', '.join(missing))}: {problem}")


def fetch_all(folder: Path, log: Log) -> None:
    """Bring what the commit names from the remote into the cache of a new clone, if there is a remote."""
    if default_remote(folder) and (problem := run_dvc(folder, "fetch")):
        log(f"warning: DVC's remote did not give everything, so more has to run: {problem}")


def push_all(folder: Path) -> str:
    """Send what `dvc.lock` and the commit's `*.dvc` name to the default remote; return what went wrong, or nothing."""
    return "; ".join(filter(None, (run_dvc(folder, "push", *targets) for targets in _targets(folder))))


def pointers(folder: Path) -> list[str]:
    """Return the `*.dvc` files of a worktree's commit."""
    return [name for name in git(folder, "ls-files", "-z", "--", "*.dvc").split("\0") if name]


def _targets(folder: Path) -> list[list[str]]:
    """Return what to ask DVC for: everything, and then pointers by name, since it overlooks those in ignored folders.

    DVC takes `data/` for ignored where .gitignore says `/data/*`, and does not look for `data/inbox/*.dvc` there.
    """
    return [[], *([found] if (found := pointers(folder)) else [])]


def default_remote(folder: Path) -> str:
    """Return the name of DVC's default remote, or nothing."""
    from dvc.config import Config

    return str(Config(str(folder / ".dvc"), validate=False).get("core", {}).get("remote") or "")


def run_dvc(folder: Path, *arguments: str) -> str:
    """Run a `dvc` command; return what went wrong, in a line without secrets, or nothing."""
    command = [sys.executable, "-m", "dvc", *arguments[:1], "--quiet", *arguments[1:]]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=DVC_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"dvc {arguments[0]} took longer than {DVC_SECONDS // 3600} hours"
    if not done.returncode:
        return ""
    told = [line for line in done.stderr.split("\n") if line.strip()] or [f"status {done.returncode}"]
    errors = [line for line in told if line.startswith("ERROR")] or told[-1:]
    return shown(redacted(" ".join(errors[:3])), 400)


def _check_links(folder: Path) -> None:
    """Refuse a commit that has a link where a run writes: it would write into somebody else's file or folder."""
    tracked = (line.partition("\t") for line in git(folder, "ls-files", "--stage", "-z").split("\0"))
    links = [Path(name) for mode, _, name in tracked if mode.startswith("120000")]
    written = {Path(name) for name in WRITTEN}
    with suppress(AttuneError):  # of a graph that is none, the run itself will say so
        written |= {Path(out) for node in read_graph(folder).values() for out in node.outs} if links else set()
    for link in links:
        if any(link == path or link in path.parents for path in written):
            told = f"the commit has {shown(str(link), LONGEST_SHOWN)} as a link, and what it leads to would be written"
            raise AttuneError(told, "commit the file or folder itself")


def _share_cache(home: Path, folder: Path) -> None:
    """Write `.dvc/config.local`: that of the home, its cache, and relative paths of remotes as they hold there."""
    from dvc.config import Config, ConfigError, merge
    from dvc.config_schema import RelPath

    try:
        at_home, config = Config(str(home / ".dvc")), Config(str(folder / ".dvc"), validate=False)
    except ConfigError as error:
        raise AttuneError(f"DVC cannot read {home}: {shown(redacted(str(error)), 300)}", "dvc status, there") from None
    cache = str(at_home.get("cache", {}).get("dir") or home / ".dvc" / "cache")
    moved: dict[str, dict[str, str]] = {}
    for name, settings in config.load_one("repo")["remote"].items():
        relative = {key: value for key, value in settings.items() if isinstance(value, RelPath)}
        moved[name] = {
            key: os.path.normpath(home / ".dvc" / os.path.relpath(value, folder / ".dvc"))
            for key, value in relative.items()
        }
    own: dict[str, Any] = {"remote": {name: paths for name, paths in moved.items() if paths}}
    merge(own, at_home.load_one("local"))
    merge(own, {"cache": {"dir": cache}})
    with config.edit("local", validate=False) as local:
        merge(local, own)
    (folder / ".dvc" / "config.local").chmod(0o600)  # it may hold the login of a remote


def _copy_inbox(home: Path, folder: Path, log: Log) -> None:
    """Copy people's own data as they are now; a file that the commit leaves to DVC comes from there instead."""
    if not (home / INBOX).is_dir():
        return
    kept_by_dvc = [path for name in pointers(folder) for path in _outs(folder, name)]
    for name in _own_files(home, log):
        source, target, said = home / name, folder / name, shown(name, LONGEST_SHOWN)
        if any(target == path or path in target.parents for path in kept_by_dvc):
            continue
        if (why := _taken(folder, target)) or not (source.is_symlink() or source.is_file()):
            log(f"warning: {said} is {why or 'no file, and'} not taken along")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and not (source.is_file() and (home / INBOX).resolve() in source.resolve().parents):
            # What it leads to is not copied: that may be large, or nothing that belongs into a run's folder.
            target.symlink_to(source.parent.resolve() / source.readlink())
            log(f"{said} is a link: its file is read where it is")
        else:
            _copy(source, target)


def _own_files(home: Path, log: Log) -> Iterator[str]:
    """Yield the files of the inbox that Git does not have; of a repository in it, which Git names alone, its files."""
    for name in filter(None, git(home, "ls-files", "--others", "-z", "--", str(INBOX)).split("\0")):
        if not name.endswith("/"):
            yield name
            continue
        for path, folders, files in os.walk(home / name, onerror=lambda error: log(f"warning: {visible(str(error))}")):
            folders[:] = sorted(one for one in folders if one != ".git")
            for one in sorted({*files, *folders} - {".git"}):
                found = Path(path) / one
                if found.is_symlink() or not found.is_dir():
                    yield str(found.relative_to(home))


def _taken(folder: Path, target: Path) -> str:
    """Return why a file of a person's cannot stand at a place of a worktree, or nothing if it can.

    A link of the commit would lead out of the worktree: what is written there would be somebody else's file.
    """
    above, inbox = Path(os.path.realpath(target.parent)), Path(os.path.realpath(folder)) / INBOX
    if inbox not in (above, *above.parents):
        return "below a link of the commit, and"
    if os.path.lexists(target) or any(os.path.lexists(one) and not one.is_dir() for one in target.parents):
        return "in the commit as well, and"
    return ""


def _copy(source: Path, target: Path) -> None:
    from dvc_objects.fs.system import reflink

    with TemporaryDirectory(dir=target.parent) as beside:
        part = Path(beside) / "part"
        for _ in range(TRIES):
            before = source.stat()
            try:
                # at once, and for nothing, where the file system can
                reflink(str(source), str(part))  # type: ignore[no-untyped-call]
            except OSError:
                shutil.copyfile(source, part)
            after = source.stat()
            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                part.replace(target)
                return
            time.sleep(1)
    told = f"{shown(str(source), LONGEST_SHOWN)} is being written"
    raise AttuneError(told, "write it elsewhere, and move it there when it is complete")


def _outs(folder: Path, pointer: str) -> list[Path]:
    """Return what a `.dvc` file stands for."""
    from ruamel.yaml import YAML

    file = folder / pointer
    known = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")) or {}
    return [file.parent / known.get("wdir", ".") / out["path"] for out in known.get("outs", [])]


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
