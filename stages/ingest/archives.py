"""Read files out of .zip and .tar archives as streams; no name that an archive holds is ever a path here."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

from stages.common.errors import AttuneError
from stages.common.shown import shown
from stages.ingest.expansion import BLOCK, OPENERS, Allowance, of_the_disk

ENDINGS = {"tgz": ".gz", "gz": ".gz", "tbz2": ".bz2", "bz2": ".bz2", "txz": ".xz", "xz": ".xz", "tar": ""}
LARGEST_HEADER = 4 << 20  # bytes; tarfile reads a header's long names into memory, however long they say they are
NAMES_FOR_HINTS = 1000
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,  # a compression method of which Python knows nothing
)


def unpack(archive: Path, name: str, pattern: str, target: Path, allowance: Allowance) -> list[tuple[str, Path]]:
    """Copy the files of an archive whose names match to `target`, as `0`, `1`, …; return names and copies by name.

    Args:
        archive: the file.
        name: its name, whose ending tells what it is.
        pattern: a name inside it, or one with `*` and `?`, which stop at a `/`.
        target: an empty folder.
        allowance: what may come out of it.

    Raises:
        AttuneError: if nothing matches, a match is no plain file (a link, say), is encrypted, is there twice or has a
            name that points out of the archive, or if the archive is damaged or expands too far.
    """
    origin = allowance.origin
    kind = name.lower().rpartition(".")[2]
    found: dict[str, Path] = {}
    names: list[str] = []
    with _told(origin):
        members = _zip_members(archive) if kind == "zip" else _tar_members(archive, ENDINGS[kind], allowance)
        for member, fault, size, stream in members:
            if not _matches(member, pattern):
                if len(names) < NAMES_FOR_HINTS and fault is None:
                    names.append(member)
                continue
            wrong = "is there twice" if member in found else _points_outside(member) or fault
            if wrong:
                raise AttuneError(f"{origin}: '{shown(member, 100)}' {wrong}", "name another member, or pack it anew")
            copy = target / str(len(found))
            with copy.open("wb") as out, stream() as source:
                copied = allowance.copy(source, out)
            if copied != size:
                raise AttuneError(
                    f"{origin}: '{shown(member, 100)}' says it has {size:,} bytes and has {copied:,}",
                    "pack the archive anew",
                )
            found[member] = copy
    if not found:
        raise AttuneError(f"{origin}: the archive holds no file {pattern!r}", similar(pattern, names))
    return sorted(found.items())


def similar(wanted: str, names: Iterable[str]) -> str:
    """Return what to do when a file is not in an archive: the names most like the wanted one."""
    name, ending = PurePosixPath(wanted).name, PurePosixPath(wanted).suffix
    files = sorted(names)
    close = [other for other in files if PurePosixPath(other).name == name]
    close = close or [other for other in files if ending and other.endswith(ending)]
    close = close or get_close_matches(wanted, files, n=5)
    return (
        f"set member to one of: {', '.join(shown(name, 200) for name in close[:5])}"
        if close
        else "list the names that it holds, and take one"
    )


Member = tuple[str, str | None, int, Any]  # name, what is wrong with it, bytes it says it has, a way to open it


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.filename.endswith("/"):  # info.is_dir() fails where there is no name
                continue
            mode = info.external_attr >> 16  # of Unix; 0 where the archive comes from elsewhere
            fault = None
            if info.flag_bits & 0x1:
                fault = "is encrypted: unpack it and pack it again without a password"
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                fault = "is a link or a device, no plain file"
            yield info.filename, fault, info.file_size, lambda info=info: opened.open(info)


def _tar_members(archive: Path, compression: str, allowance: Allowance) -> Iterator[Member]:
    opener: Any = OPENERS.get(compression, open)
    with opener(archive, "rb") as plain:
        # What is passed over costs time too, so the whole stream has a limit of its own.
        counted = _Forward(plain, Allowance(allowance.megabytes, allowance.origin) if compression else None)
        with tarfile.open(fileobj=counted, mode="r:", errorlevel=2) as opened:  # type: ignore[call-overload]
            while (info := opened.next()) is not None:
                opened.members.clear()  # it would keep all of them
                if info.isdir():
                    continue
                fault = None if info.isreg() and not info.issparse() else "is a link or a device, no plain file"
                yield info.name.removeprefix("./"), fault, info.size, lambda info=info: opened.extractfile(info)
        # tarfile takes a broken header in the middle for the end; the real end is a block of zeros.
        if counted.last.strip(b"\0") or not counted.last:
            raise tarfile.ReadError("it is cut off, or a header is broken")
        while counted.read(BLOCK):  # to the checksum at the very end
            pass


class _Forward:
    """The stream below a tar file: read forwards, each byte counted, no header too long."""

    def __init__(self, stream: IO[bytes], allowance: Allowance | None) -> None:
        self.stream = stream
        self.allowance = allowance
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data = self.stream.read(size)
        if self.allowance:
            self.allowance.spend(len(data))
        self.last = data
        return data

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, position: int, whence: int = 0) -> int:
        if not self.allowance or position < self.tell():
            return self.stream.seek(position, whence)
        while (ahead := position - self.tell()) > 0 and self.read(min(ahead, BLOCK)):
            pass
        return self.tell()


def _matches(name: str, pattern: str) -> bool:
    if name == pattern:
        return True
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatchcase(*pair) for pair in zip(parts, wanted, strict=True))


def _points_outside(name: str) -> str | None:
    path = PurePosixPath(name.replace("\\", "/"))
    return "is a path that points out of the archive" if path.is_absolute() or ".." in path.parts else None


@contextmanager
def _told(origin: str) -> Iterator[None]:
    """Say of a damaged archive that it is one."""
    try:
        yield
    except DAMAGE as error:
        if of_the_disk(error):
            raise
        reason = str(error)[:200] or type(error).__name__
        raise AttuneError(f"{origin}: the archive is damaged ({reason})", "copy or download it again") from None
