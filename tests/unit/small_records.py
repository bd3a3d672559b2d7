"""Tables of records, and what a source is received as."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save

from stages.common.params import Source
from stages.common.schemas import CleanRecords, RawRecords
from stages.ingest.archives import Workspace
from stages.ingest.fetch import open_source
from stages.ingest.records import read_records

FILM_WORDS = ["film", "story", "actor", "scene", "music", "plot", "camera", "ending", "dialogue", "script"]

MODEL = {  # the files of a model that ingest takes
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": save({"embeddings": np.zeros(2, dtype=np.float32)}),
    "tokenizer.json": b"{}",
}


def received(source: Source, folder: Path, **limits: int) -> tuple[list[tuple[str, pl.DataFrame]], dict[str, Any]]:
    """Return what messages call each table of a source, the records of each, and the source's entry in the manifest.

    Downloads are kept in `folder`, where nothing else is left.
    """
    with open_source(source, Workspace(folder, folder, **limits)) as (tables, entry):
        return [(table.origin, pl.concat(read_records(table, source))) for table in tables], entry


def make_records(rows: list[dict[str, str | None]]) -> pl.DataFrame:
    """Fill rows up to raw records: ids by position, two labels in turn, unless a row says otherwise."""
    filled = [
        {
            "id": f"row{index:06d}",
            "text": None,
            "text_pair": None,
            "label": ("negative", "positive")[index % 2],
            "group": None,
            "split": None,
            "source": "tests",
            "extra": None,
            **row,
        }
        for index, row in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema=dict.fromkeys(RawRecords.columns(), pl.String))


def clean_rows(rows: list[dict[str, Any]], start: str = "") -> pl.DataFrame:
    """Rows of one split, whose ids start with this."""
    records = make_records([{"text": "t", **row} for row in rows]).with_columns(fold=pl.lit(None, pl.Int16))
    return records.with_columns(id=pl.lit(start) + pl.col("id")).select(CleanRecords.columns())


def text_rows(texts: list[str], pairs: list[str | None] | None = None, **columns: object) -> pl.DataFrame:
    """Rows of texts and pairs, as a model is asked about them; further columns have the same value everywhere."""
    table = {"text": texts, "text_pair": pairs or [None] * len(texts)}
    rows = pl.DataFrame(table, schema=dict.fromkeys(table, pl.String))
    return rows.with_columns(*(pl.lit(value).alias(name) for name, value in columns.items()))


def judged_rows(texts: list[str], pairs: list[str | None] | None = None, prediction: str = "good") -> pl.DataFrame:
    """Test rows that are good, and that a model calls this."""
    rows = text_rows(texts, pairs, kind="sample", label="good", prediction=prediction, confidence=0.9)
    return rows.with_columns(id=pl.format("row{}", pl.int_range(pl.len())))


def interval(value: float, width: float = 0.05) -> dict[str, float]:
    """Both scores with an interval that is so wide on either side."""
    ends = {"": 0.0, "_low": -width, "_high": width}
    return {f"{name}{end}": value + shift for name in ("accuracy", "macro_f1") for end, shift in ends.items()}
