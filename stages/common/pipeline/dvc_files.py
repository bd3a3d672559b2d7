"""Files in which DVC cannot go on: those that it was killed over, and those among its dependencies that it cannot read.

DVC writes `dvc.lock` and its list of readers and writers in place. Killed meanwhile, or on a full disk, it leaves them
empty or cut off, and refuses to do anything until somebody deletes them, after which everything would run again.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import psutil

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.locks import in_turn
from stages.common.pipeline.graph import LOCK, PUT_BACK, LockBroken, parse_lock, read_graph

TMP = Path(".dvc/tmp")
DVC_LOCK = TMP / "lock"  # held while DVC works, but not while one of its stages runs
KEPT, BROKEN = Path(".attune/dvc.lock"), Path(".attune/dvc.lock.broken")  # the last one that was whole; one that is not

OURS = re.compile(r"/data/inbox/|/[0-9a-f]{2}/[0-9a-f]{30}$")  # another checkout's inbox; a file of DVC's cache

Log = Callable[[str], None]


def keep_lock(root: Path = Path()) -> None:
    """Keep a copy of a `dvc.lock` that is whole; a disk that takes none costs nothing but the copy."""
    with suppress(OSError, AttuneError):
        if (root / LOCK).exists() and (content := _content(root / LOCK)) != _content(root / KEPT):
            _check(content)
            (root / KEPT).parent.mkdir(exist_ok=True)
            _replace(root / KEPT, content)


def mend(root: Path = Path(), log: Log = print) -> None:
    """Put the last whole `dvc.lock` back where it is empty or cut off, and remove a broken list of readers and writers.

    An AttuneError if `dvc.lock` has a merge conflict, or is broken and no earlier one is kept.
    """
    _mend_list(root, log)
    try:
        check_lock(root)
    except LockBroken:
        with in_turn(root / DVC_LOCK, lambda: log("another dvc command is at work in this checkout: waiting for it")):
            _put_back(root, log)
    keep_lock(root)


def check_lock(root: Path = Path()) -> None:
    """Raise LockBroken if there is a `dvc.lock`, empty or cut off, or AttuneError if a merge left a conflict in it."""
    content, kept = _content(root / LOCK), _content(root / KEPT)
    if (root / LOCK).exists() and not (content and content == kept):
        _check(content)
        if len(content) < len(kept) and kept.startswith(content):
            raise LockBroken(f"{LOCK} is cut off after line {content.count(chr(10))}", PUT_BACK)


def check_deps(root: Path = Path()) -> None:
    """Look for what DVC cannot read among the dependencies, or should not, apart from names that `.dvcignore` has.

    A link that leads out of the inbox would bring its file into tables and into DVC's cache. What DVC keeps as links
    into a cache of its own (`cache.type`) stays, as does one from a scheduled run's copy of the inbox to the inbox. An
    AttuneError names the first such link, or what is neither a file nor a folder.
    """
    ignored, inbox = root / ".dvcignore", root / "data/inbox"
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.exists() else []
    patterns = [line.strip().lstrip("\\") for line in lines if line.strip() and not line.startswith("#")]
    home = os.path.realpath(inbox)
    for path in _below(root / dep for node in read_graph(root).values() for dep in node.deps):
        if any(fnmatch(path.name, pattern) for pattern in patterns):
            continue
        if path.is_symlink():  # a folder of documents may have very many files: only links are followed
            link, target = display(str(path), 200, None), Path(os.path.realpath(path))
            if not path.exists():
                what = f"{link} is a link to {display(str(path.readlink()), 200, None)}, which is not there"
                raise AttuneError(what, "remove the link, or put back what it leads to")
            outside = path.is_relative_to(inbox) and not target.is_relative_to(home)
            if outside and not OURS.search(target.as_posix()):
                what = f"{link} is a link that leads out of {inbox}/, to {display(str(target), 200, None)}"
                raise AttuneError(what, "copy there what you mean to train on, in place of the link; or remove it")
        if not path.is_file() and not path.is_dir():
            what = f"{display(str(path), 200, None)} is neither a file nor a folder"
            raise AttuneError(what, "DVC cannot read it: move it elsewhere")


def _below(paths: Iterable[Path]) -> Iterable[Path]:
    for path in dict.fromkeys(paths):
        if path.is_symlink() or path.exists():
            yield path
        for folder, folders, names in os.walk(path):  # which looks into no linked folder
            yield from (Path(folder) / name for name in [*folders, *names])


def _put_back(root: Path, log: Log) -> None:
    try:
        check_lock(root)  # once more: whoever held DVC's lock may have written it meanwhile
    except LockBroken as broken:
        try:
            _check(kept := _content(root / KEPT))
        except AttuneError:
            fix = f"take the committed one, if Git has one: git checkout {LOCK}; or remove it: rm {LOCK}, then make run"
            raise AttuneError(f"{broken.what}, and no earlier one is kept", fix) from None
        _replace(root / BROKEN, _content(root / LOCK))
        _replace(root / LOCK, kept)
        log(f"{broken.what}; the last whole one is back (the other: {BROKEN})")


def _check(content: str) -> None:
    parse_lock(content, pure=False)
    if not content.endswith("\n"):
        raise LockBroken(f"{LOCK} is cut off in line {content.count(chr(10)) + 1}", PUT_BACK)


def _mend_list(root: Path, log: Log) -> None:
    path = root / TMP / "rwlock"
    if not path.exists():
        return
    with in_turn(path.with_name("rwlock.lock")):  # DVC holds it while it writes the list
        try:
            entries, written = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
            infos = [*entries.get("write", {}).values(), *chain(*entries.get("read", {}).values())]
            ended = infos and all(_has_ended(info["pid"], written) for info in infos)
            why = "names a DVC that was killed" if ended else ""
        except (ValueError, TypeError, KeyError, AttributeError):
            why = "was left half-written by a DVC that was killed"
        if why:
            path.unlink()
            log(f"{TMP / 'rwlock'} {why}: removed")


def _has_ended(number: int, written: float) -> bool:
    """Whether a process has ended. DVC takes it for alive if nobody has asked for its status, or another has its id."""
    try:
        process = psutil.Process(number)
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + 2
    except psutil.NoSuchProcess:
        return True


def _content(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape") if path.exists() else ""


def _replace(path: Path, content: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content.encode(errors="surrogateescape"))
    os.replace(new, path)
