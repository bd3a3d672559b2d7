"""Read files out of .zip and .tar archives as streams, within the limits of a source.

No name that an archive holds is ever a path here, and no size that a header promises is believed.
"""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import of_the_disk
from stages.common.readers.streams import BLOCK, DAMAGE, decompressed

TAR = ("tar", "tgz", "gz", "tbz2", "bz2", "txz", "xz")  # endings
# What systems add to an archive of somebody's files; no pattern means it
ADDED = ("._*", ".DS_Store", "Thumbs.db", "desktop.ini", "~$*", ".~lock.*#", ".#*")
NO_FILE = "is a link or a device, no plain file"
# RuntimeError: encrypted, or by a compression method that Python does not support
OF_ARCHIVES = (zipfile.BadZipFile, tarfile.TarError, ValueError, OverflowError, RuntimeError)

Member = tuple[str, str | None, Callable[[], Any]]  # name, what is wrong with it, a way to open it


class Workspace(NamedTuple):
    """Where files go, and how large one source may be."""

    downloads: Path  # kept from run to run
    unpacked: Path  # what comes out of archives, while it is read
    max_download_mb: int = 2048  # MiB, of one download
    max_expanded_mb: int = 8192  # MiB that one source may unpack to

    def check_download(self, size: int, origin: str) -> None:
        """Raise AttuneError if a download of `size` bytes is too large."""
        SizeBudget(self.max_download_mb, origin, "is larger", "max_download_mb").spend(size)


@dataclass
class SizeBudget:
    """The bytes that one source may have: `megabytes` MiB in all, of the key `limit` of params."""

    megabytes: int
    origin: str
    fault: str = "unpacks to more"  # a small file that does may be a trap
    limit: str = "max_expanded_mb"
    spent: int = 0  # bytes

    def spend(self, count: int) -> None:
        """Take `count` bytes off the budget; raise AttuneError if they are more than what was left."""
        self.spent += count
        if self.spent > self.megabytes << 20:
            fault = f"{self.origin}: {self.fault} than {self.megabytes:,} MiB"
            raise AttuneError(fault, f"if it is what you expect, raise ingest.{self.limit}")


def unpack(archive: Path, name: str, patterns: Sequence[str], target: Path, budget: SizeBudget) -> dict[str, Path]:
    """Copy the files of an archive whose names match to `target`, as `0`, `1`, …; return the copies in order of names.

    The ending of its name tells what it is. Patterns are names inside it, or have `*` and `?`, which stop at a `/` and
    leave out what a Mac adds (`._*`). An AttuneError if nothing matches, a match is no plain file (a link, say), is
    encrypted or is there twice, or if the archive is damaged or expands too far.
    """
    origin, ending = budget.origin, name.lower().rpartition(".")[2]
    copies: dict[str, Path] = {}
    others: list[str] = []
    target.mkdir(parents=True, exist_ok=True)
    try:
        members = _tar_members(archive, budget) if ending in TAR else _zip_members(archive)
        for member, fault, open_member in members:
            if not any(_matches(member, pattern) for pattern in patterns):
                others += [] if added(member) else [member]
                continue
            if wrong := "is there twice" if member in copies else fault:
                what = f"{origin}: '{display(member, 100, None)}' {wrong}"
                raise AttuneError(what, "name another member, or pack it anew")
            copies[member] = target / str(len(copies))
            with copies[member].open("wb") as out, open_member() as stream:
                while block := stream.read(BLOCK):
                    budget.spend(len(block))
                    out.write(block)
    except (*DAMAGE, *OF_ARCHIVES) as error:
        if of_the_disk(error):
            raise
        reason = str(error)[:200] or type(error).__name__
        fix = f"remove {archive}, and copy it anew (or run again, if it was downloaded)"
        raise AttuneError(f"{origin}: the archive cannot be read ({reason})", fix) from None
    if not copies:
        raise AttuneError(f"{origin}: the archive holds no file {patterns[0]!r}", similar(patterns[0], others))
    return dict(sorted(copies.items()))


def _matches(name: str, pattern: str) -> bool:
    name, pattern = normalize("NFC", name), normalize("NFC", pattern)
    names, patterns = name.split("/"), pattern.split("/")
    fits = len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))
    return name == pattern or (fits and (added(pattern) or not added(name)))


def added(name: str) -> bool:
    """Return whether a system or an editor put a file with this name there."""
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or any(fnmatchcase(path.name, pattern) for pattern in ADDED)


def similar(missing: str, names: Iterable[str]) -> str:
    """Return what to do when a file is not in an archive: the names most like the missing one."""
    close = get_close_matches(missing, sorted(names), n=5, cutoff=0)
    return f"set member to one of: {', '.join(display(name, 200, None) for name in close)}"


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.filename.endswith("/"):  # info.is_dir() fails where there is no name
                continue
            regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)  # 0: packed elsewhere than on Unix
            yield info.filename, None if regular else NO_FILE, partial(opened.open, info)


def _tar_members(archive: Path, budget: SizeBudget) -> Iterator[Member]:
    with archive.open("rb") as file:
        # Members that are passed over are decompressed too, so the whole stream has a budget of its own.
        whole = SizeBudget(budget.megabytes, budget.origin)
        stream = decompressed(file, whole.spend)
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as opened:
            while (info := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                if not info.isdir():
                    regular = info.isreg() and not info.issparse()
                    yield info.name.removeprefix("./"), None if regular else NO_FILE, partial(opened.extractfile, info)
            # tarfile takes a broken header for the end, behind which there are zeros alone. And this reads on to the
            # checksum of the compressed file.
            rest: Any = opened.fileobj
            ended = False
            while block := rest.read(BLOCK):
                if block.strip(b"\0"):
                    raise tarfile.ReadError("a header is broken")
                ended = True
            if not ended:
                raise tarfile.ReadError("it is cut off")
