"""The output, and what survives a kill: finished chunks beside it, each named by what it was made of.

`OUTPUT.parts/` holds a Parquet file a chunk, renamed into place, so that it is whole or not there. Its name has the
digest of model, options and rows, so that one made of anything else is not found; its counts are in its metadata.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.drift import Counts
from stages.common.errors import AttuneError
from stages.common.locks import locked
from stages.common.readers.table import as_text

PROBABILITY = "probability_"  # and the label: a column of the output
AS_TEXT = {".csv": (pl.List, pl.Array, pl.Struct, pl.Duration, pl.Binary), ".jsonl": (pl.Binary,)}  # by kind of output


@contextmanager
def parts_folder(output: Path) -> Iterator[Path]:
    """Yield the folder for an output's parts, locked, and kept until all are done; an AttuneError if another has it."""
    folder = output.with_name(f"{output.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock") as acquired:
        if not acquired:
            raise AttuneError(f"another process is writing {output}", "wait for it, or name another output")
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # it holds data, and belongs to nobody's commit
        finished = False
        try:
            yield folder
            finished = True
        finally:
            if finished or not any(folder.glob("*.parquet")):
                shutil.rmtree(folder)


def part_path(folder: Path, number: int, chunk: pl.DataFrame, made_with: Any) -> Path:
    """Return where the part of a chunk of the input (from 0) is, or will be; it is made with a model and options."""
    schema = {name: str(kind) for name, kind in chunk.schema.items()}
    digest = sha256(json.dumps([made_with, schema]).encode() + chunk.hash_rows(0).to_numpy().tobytes())
    return folder / f"{number:08d}-{digest.hexdigest()[:32]}.parquet"


def with_input_columns(answers: pl.DataFrame, chunk: pl.DataFrame, names: Sequence[str], kind: str) -> pl.DataFrame:
    """Return answers with columns of the input beside them, as an output of this kind can hold them.

    One whose name is taken, or begins as those of probabilities do, becomes `input_NAME`.
    """
    columns = {name: answers[name] for name in answers.columns}
    for name in names:
        column, free_name = chunk[name], name
        if column.dtype in AS_TEXT.get(kind, ()):
            column = pl.Series([as_text(value) for value in column.to_list()], dtype=pl.String)
        while free_name in columns or free_name.startswith(PROBABILITY):
            free_name = f"input_{free_name}"
        columns[free_name] = column
    return pl.DataFrame(columns)


def write_part(part: Path, rows: pl.DataFrame, counts: Counts) -> None:
    """Keep a finished part."""
    unfinished = part.with_name("aside.tmp")
    rows.write_parquet(unfinished, compression="zstd", metadata={"counts": json.dumps(counts)})
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, part)


def assemble(parts: Sequence[Path], file: Path, kind: str) -> None:
    """Write parts into one file of a kind, `.parquet`, `.csv` or `.jsonl`."""
    if kind == ".parquet":  # one row group a part: what polars makes of many files depends on its threads
        from pyarrow.parquet import ParquetWriter  # type: ignore[import-untyped]

        schema = pl.read_parquet(parts[0]).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        with ParquetWriter(file, schema, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pl.read_parquet(part).to_arrow(compat_level=pl.CompatLevel.oldest()))
        return
    rows = pl.scan_parquet(list(parts))
    if kind == ".csv":
        rows.sink_csv(file)
    else:
        rows.sink_ndjson(file)
