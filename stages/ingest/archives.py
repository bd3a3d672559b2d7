"""Read files out of .zip and .tar archives as streams; no name that an archive holds is ever a path here."""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import of_the_disk
from stages.common.readers.streams import BLOCK, DAMAGE, decompressed
from stages.ingest.expansion import SizeBudget

COMPRESSION = {"tgz": ".gz", "gz": ".gz", "tbz2": ".bz2", "bz2": ".bz2", "txz": ".xz", "xz": ".xz"}  # of a .tar
NO_FILE = "is a link or a device, no plain file"
# RuntimeError: encrypted, or by a compression method that Python does not support
OF_ARCHIVES = (zipfile.BadZipFile, tarfile.TarError, ValueError, OverflowError, RuntimeError)

Member = tuple[str, str | None, Callable[[], Any]]  # name, what is wrong with it, a way to open it


def unpack(archive: Path, name: str, patterns: Sequence[str], target: Path, budget: SizeBudget) -> dict[str, Path]:
    """Copy the files of an archive whose names match to `target`, as `0`, `1`, …; return the copies in order of names.

    Args:
        archive: the file.
        name: its name, whose ending tells what it is.
        patterns: names inside it, or with `*` and `?`, which stop at a `/`.
        target: a folder, made if it is missing.
        budget: what may come out of it.

    Raises:
        AttuneError: if nothing matches, a match is no plain file (a link, say), is encrypted or is there twice, or if
            the archive is damaged or expands too far.
    """
    origin, ending = budget.origin, name.lower().rpartition(".")[2]
    copies: dict[str, Path] = {}
    others: list[str] = []
    target.mkdir(parents=True, exist_ok=True)
    try:
        tar = ending == "tar" or ending in COMPRESSION
        members = _tar_members(archive, COMPRESSION.get(ending), budget) if tar else _zip_members(archive)
        for member, fault, open_member in members:
            if not any(_matches(member, pattern) for pattern in patterns):
                others.append(member)
                continue
            if wrong := "is there twice" if member in copies else fault:
                raise AttuneError(f"{origin}: '{display(member, 100)}' {wrong}", "name another member, or pack it anew")
            copies[member] = target / str(len(copies))
            with copies[member].open("wb") as out, open_member() as stream:
                while block := stream.read(BLOCK):
                    budget.spend(len(block))
                    out.write(block)
    except (*DAMAGE, *OF_ARCHIVES) as error:
        if of_the_disk(error):
            raise
        reason = str(error)[:200] or type(error).__name__
        again = f"remove {archive.parent} and run again: it is downloaded anew"
        fix = again if ending == "whl" else "copy or download it again"
        raise AttuneError(f"{origin}: the archive cannot be read ({reason})", fix) from None
    if not copies:
        raise AttuneError(f"{origin}: the archive holds no file {patterns[0]!r}", similar(patterns[0], others))
    return dict(sorted(copies.items()))


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("/"), pattern.split("/")
    return name == pattern or (len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)))


def similar(wanted: str, names: Iterable[str]) -> str:
    """Return what to do when a file is not in an archive: the names most like the wanted one."""
    files, path = sorted(names), PurePosixPath(wanted)
    close = [other for other in files if PurePosixPath(other).name == path.name]
    close = close or [other for other in files if path.suffix and other.endswith(path.suffix)]
    return f"set member to one of: {', '.join(display(name, 200) for name in (close or files)[:5])}"


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.filename.endswith("/"):  # info.is_dir() fails where there is no name
                continue
            regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)  # 0: packed elsewhere than on Unix
            yield info.filename, None if regular else NO_FILE, partial(opened.open, info)


def _tar_members(archive: Path, compression: str | None, budget: SizeBudget) -> Iterator[Member]:
    with archive.open("rb") as file:
        # Members that are passed over are decompressed too, so the whole stream has a budget of its own.
        whole = SizeBudget(budget.megabytes, budget.origin)
        stream = decompressed(file, compression, whole.spend) if compression else file
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
