"""Tables of records, and what a source is received as."""

import io
import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save
from tokenizers import Tokenizer, models

from stages.common.params import AugmentParams, CleanParams, IngestParams, Source
from stages.common.readers.table import Table
from stages.common.schemas import CleanRecords, RawRecords
from stages.ingest.archives import Workspace
from stages.ingest.fetch import open_source
from stages.ingest.records import read_records
from stages.tasks import kept_targets, label_issues, load_task, targets
from stages.tasks.base import Task

FILM_WORDS = ["film", "story", "actor", "scene", "music", "plot", "camera", "ending", "dialogue", "script"]

SHAPES = {"word": (6, 4), "position": (8, 4), "token_type": (2, 4)}
NORM = dict.fromkeys(["embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"], np.ones(4, dtype=np.float32))
WEIGHTS = {f"embeddings.{name}_embeddings.weight": np.ones(shape, np.float32) for name, shape in SHAPES.items()} | NORM
CONFIG = {"model_type": "bert", "vocab_size": 6, "hidden_size": 4, "max_position_embeddings": 8}
CONFIG |= {"num_hidden_layers": 0, "num_attention_heads": 1, "intermediate_size": 4}
VOCABULARY = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film"])}
MODEL = {  # the files of a model that ingest takes: a BERT without layers and pooler
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": save(WEIGHTS),
    "tokenizer.json": Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]")).to_str().encode(),
}


TASK = load_task("text-classification")


class Sets(Task):
    """Several labels a text."""

    name = "multi-label"

    def parse_target(self, cell: str, params: IngestParams) -> str | None:
        """Read a list."""
        return targets.parse_set(cell)

    def names(self, label: str) -> list[str]:
        """Read its names."""
        return targets.set_of(label)

    def renamed(self, label: str, names: Mapping[str, str | None]) -> str | None:
        """Rename them."""
        return targets.renamed_set(label, names)

    def label_issues(self, rows: pl.DataFrame, params: CleanParams) -> pl.DataFrame:
        """Doubt one of them."""
        return label_issues.of_sets(rows, params.label_issues.min_confidence)

    def keeps_target(
        self, made: pl.DataFrame, train: pl.DataFrame, params: AugmentParams, seed: int
    ) -> pl.Series | None:
        """Look for each of them."""
        return kept_targets.of_sets(made, train, params.label_preservation.min_probability, seed)


class Numbers(Task):
    """A number of 0 to 5 for each text; numbers up to 1 apart do not contradict each other."""

    name = "regression"

    def parse_target(self, cell: str, params: IngestParams) -> str | None:
        """Read it."""
        return targets.parse_number(cell, [0.0, 5.0])

    def names(self, label: str) -> list[str]:
        """It has none."""
        return []

    def merged(self, labels: Collection[str], params: CleanParams) -> str | None:
        """Take the mean."""
        values = [*map(float, labels)]
        return targets.canonical_number(sum(values) / len(values)) if max(values) - min(values) <= 1 else None

    def strata(self, labels: pl.Series, params: CleanParams) -> pl.Series:
        """Tell low ones from high ones."""
        return (
            pl.select(pl.when(labels.cast(pl.Float64) < 2.5).then(pl.lit("low")).otherwise(pl.lit("high")))
            .to_series()
            .alias("label")
        )

    def keeps_target(
        self, made: pl.DataFrame, train: pl.DataFrame, params: AugmentParams, seed: int
    ) -> pl.Series | None:
        """See how far it moves."""
        return kept_targets.of_numbers(made, train, seed)


SETS, NUMBERS = Sets(), Numbers()


def records_of(table: Table, source: Source, task: Task = TASK, **ingest: Any) -> Iterator[pl.DataFrame]:
    """The records of a table, as the section `ingest` with these keys has them."""
    params = IngestParams(sources=[source], base_model={"scratch": {}}, **ingest)
    return read_records(table, source, task, params)


def counted(splits: Mapping[str, pl.DataFrame]) -> dict[str, dict[str, int]]:
    """Rows by split and label."""
    return {name: TASK.named(rows["label"]) for name, rows in splits.items()}


def received(source: Source, folder: Path, **limits: int) -> tuple[list[tuple[str, pl.DataFrame]], dict[str, Any]]:
    """Return what messages call each table of a source, the records of each, and the source's entry in the manifest.

    Downloads are kept in `folder`, where nothing else is left.
    """
    with open_source(source, Workspace(folder, folder, **limits)) as (tables, entry):
        return [(table.origin, pl.concat(records_of(table, source))) for table in tables], entry


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
    """Test rows that are good, and that a model calls this; its output 1 is what attributions explain."""
    said = {"prediction": prediction, "output": 1, "confidence": 0.9, "score": 0.9, "label_quality": 0.9}
    rows = text_rows(texts, pairs, kind="sample", label="good", **said)
    return rows.with_columns(id=pl.format("row{}", pl.int_range(pl.len())))


def interval(value: float, width: float = 0.05) -> dict[str, float]:
    """Both scores with an interval that is so wide on either side."""
    ends = {"": 0.0, "_low": -width, "_high": width}
    return {f"{name}{end}": value + shift for name in ("accuracy", "macro_f1") for end, shift in ends.items()}


def shingles(text: str, size: int) -> set[str]:
    """Return the character `size`-grams of a text, without regard to case; a shorter text is its own shingle."""
    folded = text.casefold()
    return {folded[start : start + size] for start in range(max(1, len(folded) - size + 1))}


def jaccard(first: set[str], second: set[str]) -> float:
    """Return the share of shingles that two texts have in common, from 0.0 to 1.0."""
    return len(first & second) / len(first | second)


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """A ZIP archive of files by their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
