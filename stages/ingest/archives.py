"""Read files out of .zip and .tar archives as streams; no name that an archive holds is ever a path here."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from stages.common.errors import AttuneError
from stages.common.shown import shown
from stages.ingest.expansion import BLOCK, OPENERS, SizeBudget, of_the_disk

COMPRESSION = {"tgz": ".gz", "gz": ".gz", "tbz2": ".bz2", "bz2": ".bz2", "txz": ".xz", "xz": ".xz"}  # of a .tar
NAMES_FOR_HINTS = 1000
NO_FILE = "is a link or a device, no plain file"
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,  # a compression method that Python does not support
)

Member = tuple[str, str | None, Callable[[], Any]]  # name, what is wrong with it, a way to open it


def unpack(archive: Path, name: str, pattern: str, target: Path, budget: SizeBudget) -> list[tuple[str, Path]]:
    """Copy the files of an archive whose names match to `target`, as `0`, `1`, …; return names and copies by name.

    Args:
        archive: the file.
        name: its name, whose ending tells what it is.
        pattern: a name inside it, or one with `*` and `?`, which stop at a `/`.
        target: an empty folder.
        budget: what may come out of it.

    Raises:
        AttuneError: if nothing matches, a match is no plain file (a link, say), is encrypted or is there twice, or if
            the archive is damaged or expands too far.
    """
    origin, ending = budget.origin, name.lower().rpartition(".")[2]
    found: dict[str, Path] = {}
    others: list[str] = []
    try:
        members = _zip_members(archive) if ending == "zip" else _tar_members(archive, COMPRESSION.get(ending), budget)
        for member, fault, open_member in members:
            if not _matches(member, pattern):
                if len(others) < NAMES_FOR_HINTS:
                    others.append(member)
                continue
            if wrong := "is there twice" if member in found else fault:
                raise AttuneError(f"{origin}: '{shown(member, 100)}' {wrong}", "name another member, or pack it anew")
            found[member] = target / str(len(found))
            with found[member].open("wb") as out, open_member() as stream:
                budget.copy(stream, out)
    except DAMAGE as error:
        if of_the_disk(error):
            raise
        reason = str(error)[:200] or type(error).__name__
        raise AttuneError(f"{origin}: the archive is damaged ({reason})", "copy or download it again") from None
    if not found:
        raise AttuneError(f"{origin}: the archive holds no file {pattern!r}", similar(pattern, others))
    return sorted(found.items())


def similar(wanted: str, names: Iterable[str]) -> str:
    """Return what to do when a file is not in an archive: the names most like the wanted one."""
    name, ending = PurePosixPath(wanted).name, PurePosixPath(wanted).suffix
    files = sorted(names)
    close = [other for other in files if PurePosixPath(other).name == name]
    close = close or [other for other in files if ending and other.endswith(ending)]
    close = close or get_close_matches(wanted, files, n=5)
    if not close:
        return "list the names that it holds, and take one"
    return f"set member to one of: {', '.join(shown(name, 200) for name in close[:5])}"


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.filename.endswith("/"):  # info.is_dir() fails where there is no name
                continue
            fault = None
            if info.flag_bits & 0x1:
                fault = "is encrypted: unpack it and pack it again without a password"
            elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: packed elsewhere than on Unix
                fault = NO_FILE
            yield info.filename, fault, partial(opened.open, info)


def _tar_members(archive: Path, compression: str | None, budget: SizeBudget) -> Iterator[Member]:
    opener: Callable[..., Any] = OPENERS[compression] if compression else open
    with opener(archive, "rb") as plain:
        # Members that are passed over are decompressed too, so the whole stream has a budget of its own.
        stream: Any = _Counted(plain, SizeBudget(budget.megabytes, budget.origin)) if compression else plain
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as opened:
            while (info := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                if not info.isdir():
                    fault = None if info.isreg() and not info.issparse() else NO_FILE
                    yield info.name.removeprefix("./"), fault, partial(opened.extractfile, info)
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


class _Counted:
    """A stream whose bytes count against a budget."""

    def __init__(self, stream: IO[bytes], budget: SizeBudget) -> None:
        self.stream = stream
        self.budget = budget

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.budget.spend(len(data))
        return data


def _matches(name: str, pattern: str) -> bool:
    if name == pattern:
        return True
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatchcase(*pair) for pair in zip(parts, wanted, strict=True))
