"""Recorded outs compared with `dvc.lock`, for flows.provenance.bytes_here alone: it goes when that goes."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.reviewing.findings import OutCheck
from flows.reviewing.revision import Revision
from stages.common.shown import shown
from stages.common.tracking.registry import STAMP

NAME = 80  # characters shown of a file's name
DIGITS = 10  # shown of a hash
NOT_HERE = "is not here: neither the commit nor DVC's cache or remote has it"


def check_recorded(revision: Revision) -> tuple[OutCheck, ...]:
    """Return the outs of a revision that are not what its `dvc.lock` says, or not here.

    DVC takes a file of its cache that may not be written to for what its name says, and a report of Git's for what
    the commit says; here every byte is read.
    """
    found = []
    for stage in _stages(revision):
        for entry in revision.lock.get(stage, {}).get("outs", []):
            path = revision.folder / entry["path"]
            if entry["path"] == str(STAMP):
                continue  # of the registry of one machine: neither Git nor DVC's cache keeps it
            if not path.exists():
                found.append(OutCheck(stage, entry["path"], "missing", NOT_HERE))
            elif path.is_dir() or _named(entry).endswith(".dir"):
                found += _check_folder(revision, stage, entry)
            elif (md5 := _md5(path, entry)) != _named(entry):
                found.append(OutCheck(stage, entry["path"], "different", _other_hash(md5, _named(entry))))
    return tuple(found)


def _stages(revision: Revision) -> list[str]:
    """Return the stages of graph and lock, in the order of the graph."""
    return list(dict.fromkeys([*revision.graph, *revision.lock]))


def _named(entry: Mapping[str, Any]) -> str:
    return str(entry.get("md5") or entry.get("hash") or "")


def _md5(path: Path, entry: Mapping[str, Any]) -> str:
    """Return a file's MD5 as DVC counts it: before DVC 3, without the carriage returns of a text."""
    from dvc_data.hashfile.hash import file_md5

    return file_md5(str(path), name=str(entry.get("hash") or "md5-dos2unix"))


def _other_hash(found: str, named: str) -> str:
    return f"is not what dvc.lock says: its MD5 is {found[:DIGITS]}…, not {named[:DIGITS]}…"


def _check_folder(revision: Revision, stage: str, entry: Mapping[str, Any]) -> Iterator[OutCheck]:
    """Yield what is wrong with a folder: DVC's hash of it is that of a list of its files with theirs."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    folder = revision.folder / entry["path"]
    if not folder.is_dir() or not _named(entry).endswith(".dir"):
        which = "folder, not a file" if folder.is_dir() else "file, not a folder"
        yield OutCheck(stage, entry["path"], "different", f"is not what dvc.lock says: a {which}")
        return
    files = {
        path.relative_to(folder).as_posix(): _md5(path, entry) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    tree = Tree()  # type: ignore[no-untyped-call]
    for name, md5 in files.items():
        tree.add(tuple(name.split("/")), None, HashInfo("md5", md5))
    tree.digest()
    if tree.oid == _named(entry):
        return
    listed = _listed(revision.folder, _named(entry))
    if listed is None:
        yield OutCheck(stage, entry["path"], "different", f"{_other_hash(str(tree.oid), _named(entry))} (of its list)")
        return
    other = [name for name in files if files[name] != listed.get(name)]
    gone = [name for name in listed if name not in files]
    if not other and gone:
        yield OutCheck(stage, entry["path"], "missing", f"{shown(gone[0], NAME)} in it {NOT_HERE}")
    if not other:
        return
    name, more = shown(other[0], NAME), f" (and {len(other) - 1} more files)" if len(other) > 1 else ""
    told = _other_hash(files[other[0]], listed[other[0]]) if other[0] in listed else "is no file that dvc.lock knows of"
    yield OutCheck(stage, entry["path"], "different", f"{name} in it {told}{more}")


def _listed(root: Path, named: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a folder as DVC's cache lists them; None: it has no list, or another one."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash import file_md5

    try:
        with Repo(str(root)) as repo:
            caches = [cache for cache in (repo.cache.local, repo.cache.legacy) if cache]
            lists = [Path(cache.oid_to_path(named)) for cache in caches]
        path = next(path for path in lists if path.exists())
        if f"{file_md5(str(path))}.dir" != named:
            return None
        return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))}
    except (StopIteration, DvcException, OSError, ValueError, KeyError, TypeError):
        return None
