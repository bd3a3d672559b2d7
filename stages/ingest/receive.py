"""From a source to its tables: fetched, unpacked, read; and what the manifest says of it."""

import tempfile
from pathlib import Path

import polars as pl

from stages.common.digests import sha256_file
from stages.common.params import TextSource
from stages.common.shown import shown
from stages.ingest.archives import unpack
from stages.ingest.expansion import Limits, SizeBudget
from stages.ingest.fetch import licence_of, locate
from stages.ingest.formats import Reading, read_table
from stages.ingest.sql import read_query

Tables = list[tuple[str, pl.DataFrame]]  # what messages call it, and its rows, all columns as text


def receive(source: TextSource, limits: Limits, downloads: Path, unpacked: Path) -> tuple[Tables, dict[str, object]]:
    """Return the tables of a source (several where a member's name is a pattern) and its entry in the manifest.

    Args:
        source: what `params.yaml` says.
        limits: how large it may be.
        downloads: folder that keeps downloads from run to run.
        unpacked: folder for what comes out of archives while it is read.

    Raises:
        AttuneError: if the source cannot be had, is not what is expected, or cannot be read.
    """
    if source.sql:
        table, digest = read_query(source, limits)
        return [(source.origin, table)], _entry(source, [table], sha256=digest)
    with tempfile.TemporaryDirectory(dir=unpacked) as folder:
        local = locate(source, downloads, Path(folder) / "wheel", limits)
        budget = SizeBudget(limits.max_expanded_mb, source.origin)
        files = [(source.origin, local.file)]
        if source.inside:
            members = Path(folder) / "members"
            members.mkdir()
            found = unpack(local.file, source.stored, source.inside, members, budget)
            place = source.origin.removesuffix(source.inside)
            files = [(f"{place}{shown(name, 160)}", file) for name, file in found]
        tables = []
        for name, file in files:
            budget.origin = name
            tables.append((name, read_table(file, Reading.of(source, name), budget)))
        entry = _entry(
            source,
            [table for _, table in tables],
            sha256=sha256_file(local.file),
            etag=local.etag,
            revision=local.commit,
            bytes=local.file.stat().st_size,
            licence=licence_of(source, downloads),
        )
    return tables, entry


def _entry(source: TextSource, tables: list[pl.DataFrame], **known: object) -> dict[str, object]:
    """What the manifest says of a source; `sha256` is of the file as stored, or of the rows of a query."""
    nothing = dict.fromkeys(("sha256", "etag", "revision", "bytes", "licence"))
    rows = sum(table.height for table in tables)
    return {"kind": source.kind, "origin": source.origin, **nothing, **known, "rows_read": rows}
