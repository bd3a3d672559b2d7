"""From a source in params to its tables: found or fetched, its hash checked, unpacked, opened. No code of it is run."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any
from unicodedata import normalize

import polars as pl

from stages.common.digests import sha256_file, sha256_value
from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.readers.databases import QueryTable, select
from stages.common.readers.streams import Layout
from stages.common.readers.table import Table
from stages.common.readers.tables import documents, open_table
from stages.ingest.archives import SizeBudget, Workspace, added, similar, unpack
from stages.ingest.download import check_pin, download, hub_file


@contextmanager
def open_source(source: TextSource, workspace: Workspace) -> Iterator[tuple[Iterator[Table], dict[str, Any]]]:
    """Yield the tables of a source (several where a member's name is a pattern), and its entry in the manifest.

    A table is open until the next one is asked for. The entry lacks `rows_read`, known only once they are read; its
    `sha256` is of the file as stored, or of the rows of a query. An AttuneError if the source cannot be had, is not
    what is expected, or cannot be read.
    """
    entry: dict[str, Any] = {"kind": source.kind, "origin": source.origin}
    entry |= dict.fromkeys(("sha256", "etag", "revision", "bytes", "licence"))
    budget = SizeBudget(workspace.max_expanded_mb, source.origin)
    if source.sql:
        rows, entry["sha256"] = read_query(source, budget)
        yield iter([QueryTable(source.origin, [rows])]), entry
        return
    with tempfile.TemporaryDirectory(dir=workspace.unpacked) as folder:
        file, provenance = local_file(source, workspace, Path(folder))
        licence = licence_of(source, workspace.downloads)
        size = sum(part.stat().st_size for part in _files_in(file).values())
        entry |= {**provenance, "bytes": size, "licence": licence}
        yield _tables(source, file, Path(folder), budget), entry


def _tables(source: TextSource, file: Path, folder: Path, budget: SizeBudget) -> Iterator[Table]:
    files, place = {source.origin: file}, ""
    if source.inside:
        files = unpack(file, source.stored, [source.inside], folder / "members", budget)
        place = source.origin.removesuffix(source.inside)
    elif file.is_dir():
        files, place = _files_in(file), f"{source.origin}/"
    dialect = source.separator, source.quote, source.escape, source.header, source.skip
    layout = Layout(source.file_format, source.encoding, *dialect)
    if layout.format == "document":
        yield QueryTable(source.origin, documents(place, files, layout, budget.spend))
        return
    for name, copy in files.items():
        budget.origin = f"{place}{display(name, 160, None)}" if place else name
        with open_table(copy, budget.origin, layout, spend=budget.spend) as table:
            if layout.format == "lines" and len(files) > 1:  # a text torn over splits would tell one of the other
                table.group = f"{place}{name}"
            yield table


def local_file(source: TextSource, workspace: Workspace, folder: Path) -> tuple[Path, dict[str, str | None]]:
    """Return a local file with a source's bytes as stored, its hash checked, and what the manifest says of it.

    Documents may be a folder. A file out of a wheel is put into `folder`, an empty one. An AttuneError if the file
    cannot be had, is too large or has another hash.
    """
    provenance: dict[str, str | None] = {}
    match source.kind:
        case "path":
            file = _in_inbox(Path(source.stored), folder=source.format == "document" and not source.inside)
        case "url":
            file, provenance["etag"] = download(source, workspace)
        case "hub":
            file, provenance["revision"] = hub_file(source, workspace)
        case "package":
            file = _installed_file(source.package or "", source.stored)
        case _:
            wheel = download_wheel(source.wheel or "", workspace.downloads)
            budget = SizeBudget(workspace.max_expanded_mb, source.origin)
            [file] = unpack(wheel, wheel.name, [escape(source.stored)], folder / "wheel", budget).values()
    files = {name: sha256_file(part) for name, part in _files_in(file).items()}
    actual = sha256_value(files) if file.is_dir() else files[file.name]
    return file, {**provenance, "sha256": check_pin(source.origin, "sha256", source.sha256, actual)}


def as_stored(path: Path) -> Path:
    """Return a path as the disk spells it: é may be one character there or, as macOS likes it, two."""
    if path.exists() or path.parent == path:
        return path
    folder = as_stored(path.parent)
    alike = (other for other in folder.glob("*") if normalize("NFC", other.name) == normalize("NFC", path.name))
    return next(alike, folder / path.name)


def _in_inbox(file: Path, *, folder: bool) -> Path:
    file = as_stored(file)
    if file.is_file() or (folder and file.is_dir()):
        return file
    if file.exists():
        raise AttuneError(f"{file}: no regular file", "name a file; a folder of documents needs format: document")
    others = [other for other in sorted(file.parent.glob("[!.]*")) if other.is_file() and other.name != "README.md"]
    listing = f"there is: {', '.join(map(str, others[:5]))}"
    raise AttuneError(f"{file}: no such file", listing if others else "copy the file into data/inbox/")


def _files_in(path: Path) -> dict[str, Path]:
    """Return the files of a folder by their names in it, without those of systems and editors; of a file itself."""
    if not path.is_dir():
        return {path.name: path}
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    return {name: file for name, file in files.items() if not added(name)}


def _installed_file(package: str, member: str) -> Path:
    """Find a file of an installed distribution through its RECORD, without importing the package."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        fix = f"install it (.venv/bin/pip install {package}), or use a path or wheel source"
        raise AttuneError(f"the package {package!r} is not installed", fix) from None
    files = {str(file): file for file in distribution.files or []}
    if member not in files:
        raise AttuneError(f"{package} {distribution.version} holds no file {member!r}", similar(member, files))
    return Path(str(files[member].locate()))


def download_wheel(requirement: str, downloads: Path) -> Path:
    """Return the wheel of `NAME==VERSION`, downloaded now or earlier; an AttuneError if pip cannot find or fetch it.

    pip is asked for wheels alone, without dependencies: unlike an sdist, a wheel is copied, not built.
    """
    folder, partial = downloads / requirement, downloads / f"{requirement}.partial"
    if wheels := sorted(folder.glob("*.whl")):
        return wheels[0]
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
            f"check the network and that `.venv/bin/pip download {requirement}` finds a wheel; a package without one "
            f"can be installed and read with `package: {requirement.partition('==')[0]}`",
            passing=True,
        )
    os.replace(partial, folder)
    return folder / wheels[0].name


def licence_of(source: TextSource, downloads: Path) -> str | None:
    """Return the licence that a wheel or installed package states in its metadata, if it does."""
    if source.wheel:
        distributions = [*importlib.metadata.distributions(path=[str(download_wheel(source.wheel, downloads))])]
    else:
        distributions = [importlib.metadata.distribution(source.package)] if source.package else []
    headers: Any = distributions[0].metadata if distributions else {}
    stated = (headers.get("License-Expression") or headers.get("License") or "").strip()
    return None if stated in ("", "UNKNOWN") else stated.splitlines()[0][:100]


def read_query(source: TextSource, budget: SizeBudget) -> tuple[pl.DataFrame, str]:
    """Return the rows of a query, all columns as text, and a SHA-256 of them.

    A database gives rows in any order; here they are sorted, so that the same rows are the same bytes. An AttuneError
    if the query cannot be read (see `select`), gives no row, or more than the budget allows.
    """
    chunks = []
    for chunk in select(source.sql or "", source.query or "", source.origin):
        budget.spend(int(chunk.estimated_size()))
        chunks.append(chunk)
    table = pl.concat(chunks)
    if table.is_empty():
        raise AttuneError(f"{source.origin}: the query gives no rows", "try it with a client of the database")
    table = table.sort(table.columns, nulls_last=True)
    return table, sha256(table.write_csv().encode()).hexdigest()
