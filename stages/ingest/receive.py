"""From a source to its tables: fetched, unpacked, opened; and what the manifest says of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.digests import sha256_file
from stages.common.params import TextSource
from stages.common.readers.streams import Layout
from stages.common.readers.table import Table
from stages.common.readers.tables import open_table
from stages.common.shown import shown
from stages.ingest.archives import unpack
from stages.ingest.expansion import Limits, SizeBudget
from stages.ingest.fetch import licence_of, locate
from stages.ingest.sql import QueryTable, read_query

Received = tuple[Iterator[Table], dict[str, Any]]


@contextmanager
def receive(source: TextSource, limits: Limits, downloads: Path, unpacked: Path) -> Iterator[Received]:
    """Yield the tables of a source (several where a member's name is a pattern), and its entry in the manifest.

    A table is open until the next one is asked for. The entry lacks `rows_read`, known only once they are read.

    Args:
        source: what `params.yaml` says.
        limits: how large it may be.
        downloads: folder that keeps downloads from run to run.
        unpacked: folder for what comes out of archives while it is read.

    Raises:
        AttuneError: if the source cannot be had, is not what is expected, or cannot be read.
    """
    if source.sql:
        frame, digest = read_query(source, limits)
        yield iter([QueryTable(source.origin, frame)]), _entry(source, sha256=digest)
        return
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
        layout = Layout(source.file_format, source.compression, source.encoding, source.separator)

        def tables() -> Iterator[Table]:
            for name, file in files:
                budget.origin = name
                with open_table(file, name, layout, spend=budget.spend) as table:
                    yield table

        yield (
            tables(),
            _entry(
                source,
                sha256=sha256_file(local.file),
                etag=local.etag,
                revision=local.commit,
                bytes=local.file.stat().st_size,
                licence=licence_of(source, downloads),
            ),
        )


def _entry(source: TextSource, **known: object) -> dict[str, Any]:
    """What the manifest says of a source; `sha256` is of the file as stored, or of the rows of a query."""
    nothing = dict.fromkeys(("sha256", "etag", "revision", "bytes", "licence"))
    return {"kind": source.kind, "origin": source.origin, **nothing, **known}
