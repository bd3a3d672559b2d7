"""What survives a kill: finished chunks beside the output, each known by the rows it was made of.

`OUTPUT.parts/` holds a Parquet file a chunk, written aside and renamed, and beside it a seal: the digests of the file
and of the rows that it was made of, its counts, and the digest of all that. A part is opened only if its seal fits to
the byte. It is taken again if model and options are those of `made_with.json` and the rows are the same; a database
that gives other rows the second time is noticed, too.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import polars as pl

from stages.common.digests import sha256_file
from stages.common.errors import AttuneError
from stages.common.locks import locked
from stages.common.profile import Counts
from stages.common.stage import write_json

MADE_WITH = "made_with.json"
MODEL = "model"  # copied here out of the registry, and fetched again for the next try
SEAL = ".seal"


class Parts:
    """The folder of the finished parts of one output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, made_with: dict[str, Any]) -> str | None:
        """Forget parts that were made with something else; return what that was, if there were any."""
        path, changed = self.folder / MADE_WITH, None
        old = self._json(path)
        if old != made_with:
            for part in (there := sorted(self.folder.glob("*.parquet"))):
                part.unlink()
                part.with_suffix(SEAL).unlink(missing_ok=True)
            if there:
                changed = next((name for name in made_with if (old or {}).get(name) != made_with[name]), "all")
            write_json(made_with, self._aside())
            os.replace(self._aside(), path)
        return changed

    def kept(self, number: int, digest: str) -> Counts | None:
        """Return the counts of a finished part if it is whole and was made of these rows."""
        told = self._told(number)
        return told["counts"] if told and told["rows"] == digest else None

    def left(self, number: int) -> str | None:
        """Return what an earlier run left under this number: a `whole` part, a `damaged` one, or none."""
        if not self._path(number).exists():
            return None
        return "whole" if self._told(number) else "damaged"

    def write(self, number: int, digest: str, rows: pl.DataFrame, counts: Counts) -> None:
        """Keep a finished part."""
        path, aside = self._path(number), self._aside()
        rows.write_parquet(aside, compression="zstd")
        told = json.dumps({"file": sha256_file(aside), "rows": digest, "counts": counts})
        os.replace(aside, path)  # until its seal is there, too, it counts for nothing
        aside.write_text(f"{sha256(told.encode()).hexdigest()}\n{told}\n", encoding="utf-8")
        os.replace(aside, path.with_suffix(SEAL))

    def assemble(self, count: int, output: Path) -> Path:
        """Write the first `count` parts into one file of the output's format, still aside; return where."""
        whole = self._aside(output.suffix)
        with whole.open("wb") as file:
            WRITERS[output.suffix](map(self._path, range(count)), file)
        return whole

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.parquet"

    def _aside(self, suffix: str = "") -> Path:
        return self.folder / f"aside{suffix}.tmp"

    def _told(self, number: int) -> Any:
        path = self._path(number)
        try:
            seal, told = path.with_suffix(SEAL).read_text(encoding="utf-8").splitlines()
            if sha256(told.encode()).hexdigest() != seal:
                return None
            found = json.loads(told)
            return found if sha256_file(path) == found["file"] else None
        except (FileNotFoundError, ValueError):
            return None  # none there, or one that a power cut spoilt

    @staticmethod
    def _json(path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None


@contextmanager
def parts_of(output: Path) -> Iterator[Parts]:
    """Yield the parts of an output, to which nobody else has access; what is finished stays until all of it is.

    Raises:
        AttuneError: if another process works on the same output, or it cannot be written.
    """
    if output.suffix not in WRITERS:
        raise AttuneError(f"{output}: the name tells no format", f"name a file that ends in {', '.join(WRITERS)}")
    if output.is_dir():
        raise AttuneError(f"{output} is a folder", "name a file in it")
    folder = output.with_name(f"{output.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock") as mine:
        if not mine:
            raise AttuneError(f"another process is writing {output}", "wait for it, or name another output")
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # it holds data, and belongs to nobody's commit
        try:
            yield Parts(folder)
        except BaseException:
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            if not any(folder.glob("*.parquet")):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)


def digest_of(chunk: pl.DataFrame) -> str:
    """Return the SHA-256 of a chunk: names and values, in their order."""
    schema = json.dumps({name: str(kind) for name, kind in chunk.schema.items()})
    return sha256(schema.encode() + b"\n" + chunk.write_ndjson().encode()).hexdigest()


def _as_csv(parts: Iterator[Path], file: IO[bytes]) -> None:
    for number, part in enumerate(parts):
        pl.read_parquet(part).write_csv(file, include_header=number == 0)


def _as_jsonl(parts: Iterator[Path], file: IO[bytes]) -> None:
    for part in parts:
        pl.read_parquet(part).write_ndjson(file)


def _as_parquet(parts: Iterator[Path], file: IO[bytes]) -> None:
    """Write one row group a part: what polars itself makes of many files depends on its threads."""
    from pyarrow.parquet import ParquetWriter  # type: ignore[import-untyped]

    writer = None
    for part in parts:
        rows = pl.read_parquet(part).to_arrow(compat_level=pl.CompatLevel.oldest())
        writer = writer or ParquetWriter(file, rows.schema, compression="zstd")
        writer.write_table(rows)
    if writer:
        writer.close()


WRITERS = {".parquet": _as_parquet, ".csv": _as_csv, ".jsonl": _as_jsonl, ".ndjson": _as_jsonl}
