"""What survives a kill: finished chunks beside the output, each named by what it was made of.

`OUTPUT.parts/` holds a Parquet file a chunk, written aside, synced and renamed, so that it is whole or not there. Its
name has the digest of model, options and rows, so that one made of anything else is not found; its counts are in its
metadata.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import polars as pl

from stages.common.drift import Counts
from stages.common.errors import AttuneError
from stages.common.locks import locked

MODEL = "model"  # copied here out of the registry, and fetched again for the next try


class Parts:
    """The finished parts of one output.

    Args:
        folder: where they are.
        made_with: model and options, JSON-like.
    """

    def __init__(self, folder: Path, made_with: Any) -> None:
        self.folder = folder
        self._made_with = json.dumps(made_with, sort_keys=True)

    def path(self, number: int, chunk: pl.DataFrame) -> Path:
        """Return where the part of a chunk of the input is, or will be."""
        schema = json.dumps({name: str(kind) for name, kind in chunk.schema.items()})
        digest = sha256(f"{self._made_with}\n{schema}\n".encode() + chunk.write_ndjson().encode())
        return self.folder / f"{number:08d}-{digest.hexdigest()[:32]}.parquet"

    def is_stale(self, part: Path) -> bool:
        """Whether an earlier run left a part in this place that was made of something else."""
        return not part.exists() and any(self._of_the_same_number(part))

    def counts(self, part: Path) -> Counts | None:
        """Return the counts of a finished part; None if there is none."""
        from pyarrow.parquet import read_metadata  # type: ignore[import-untyped]

        if not part.exists():
            return None
        counts: Counts = json.loads(read_metadata(part).metadata[b"counts"])
        return counts

    def write(self, part: Path, rows: pl.DataFrame, counts: Counts) -> None:
        """Keep a finished part."""
        aside = self.folder / "aside.tmp"
        rows.write_parquet(aside, compression="zstd", metadata={"counts": json.dumps(counts)})
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        for stale in self._of_the_same_number(part):
            stale.unlink()
        os.replace(aside, part)

    def assemble(self, parts: Iterable[Path], output: Path) -> Path:
        """Write parts into one file of the output's format, still aside; return where."""
        whole = self.folder / f"aside{output.suffix}.tmp"
        with whole.open("wb") as file:
            WRITERS[output.suffix](parts, file)
        return whole

    def _of_the_same_number(self, part: Path) -> Iterator[Path]:
        return self.folder.glob(f"{part.name.partition('-')[0]}-*.parquet")


@contextmanager
def parts_folder(output: Path) -> Iterator[Path]:
    """Yield the folder for the parts of an output, locked; what is finished stays until all of it is.

    Raises:
        AttuneError: if another process works on the same output, or it cannot be written.
    """
    if output.suffix not in WRITERS:
        raise AttuneError(f"{output}: the name tells no format", f"name a file that ends in {', '.join(WRITERS)}")
    folder = output.with_name(f"{output.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock") as mine:
        if not mine:
            raise AttuneError(f"another process is writing {output}", "wait for it, or name another output")
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # it holds data, and belongs to nobody's commit
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            if not any(folder.glob("*.parquet")):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)


def _as_csv(parts: Iterable[Path], file: IO[bytes]) -> None:
    for number, part in enumerate(parts):
        pl.read_parquet(part).write_csv(file, include_header=number == 0)


def _as_jsonl(parts: Iterable[Path], file: IO[bytes]) -> None:
    for part in parts:
        pl.read_parquet(part).write_ndjson(file)


def _as_parquet(parts: Iterable[Path], file: IO[bytes]) -> None:
    """Write one row group a part: what polars itself makes of many files depends on its threads."""
    from pyarrow.parquet import ParquetWriter

    writer = None
    for part in parts:
        rows = pl.read_parquet(part).to_arrow(compat_level=pl.CompatLevel.oldest())
        writer = writer or ParquetWriter(file, rows.schema, compression="zstd")
        writer.write_table(rows)
    if writer:
        writer.close()


WRITERS = {".parquet": _as_parquet, ".csv": _as_csv, ".jsonl": _as_jsonl, ".ndjson": _as_jsonl}
