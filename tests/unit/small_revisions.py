"""Revisions of a project of no commits, with the tables and reports that a review reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flows.reviewing.revision import Revision
from stages.common.pipeline.graph import Node
from stages.common.schemas import CleanRecords, Predictions, Rejected
from tests.projects import TINY

PARAMS: dict[str, Any] = {
    "seed": 13,
    "ingest": {
        "sources": [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label", "extra": ["stars"]}}],
        "base_model": {"scratch": TINY},
    },
    "tokenize": {"max_length": 32},
    "evaluate": {"bootstrap": {"resamples": 100}, "slices": {"length_bins": 1, "columns": ["stars"], "min_rows": 1}},
    "register": {"model_name": "tests"},
}


@dataclass(frozen=True)
class Row:
    """A test row and what a model says of it."""

    label: str
    predicted: str
    confidence: float = 0.5
    text: str = "a text"
    stars: str | None = None


def revision(folder: Path, name: str = "main", **given: Any) -> Revision:
    """Return a revision whose files are in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"commit": "0" * 40, "subject": "a commit", "graph": {}, "lock": {}, "data": PARAMS}
    return Revision(name=name, folder=folder, **(plain | given))


def put_rows(folder: Path, rows: Mapping[str, Row]) -> None:
    """Write the test split and the predictions, rows by id."""
    put_split(folder, "test", {name: (row.label, row.text, row.stars) for name, row in rows.items()})
    same = {"abstained": False, "label_quality": 0.5, "probabilities": [0.5, 0.5]}
    answers = [
        {"id": name, "label": row.label, "prediction": row.predicted, "confidence": row.confidence, **same}
        for name, row in rows.items()
    ]
    put_table(folder, "data/predictions.parquet", pl.DataFrame(answers, Predictions.empty().schema))


def put_split(folder: Path, split: str, rows: Mapping[str, tuple[str, str, str | None]]) -> None:
    """Write a clean split: label, text and stars by id."""
    table = [
        {"id": name, "text": text, "label": label, "source": "tests", "extra": stars and json.dumps({"stars": stars})}
        for name, (label, text, stars) in rows.items()
    ]
    put_table(folder, f"data/clean/{split}.parquet", pl.DataFrame(table, CleanRecords.empty().schema))


def put_data(folder: Path, train: Mapping[str, tuple[str, str]]) -> None:
    """Write all clean splits, only one of which has rows, and the rejected rows: label and text by id."""
    for split, rows in {"validation": {}, "test": {}, "train": train}.items():
        put_split(folder, split, {name: (*row, None) for name, row in rows.items()})
    for path in ("data/raw/rejected.parquet", "data/clean/rejected.parquet"):
        put_table(folder, path, Rejected.empty())


def put_table(folder: Path, path: str, table: pl.DataFrame) -> None:
    """Write a Parquet file."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(target)


def node(name: str, *deps: str, outs: tuple[str, ...] = ()) -> Node:
    """Return a stage of dvc.yaml."""
    return Node(name, "", f"python -m stages.{name}", deps, outs)


def locked(deps: Mapping[str, str], outs: Mapping[str, str], params: Any = None, cmd: str = "python") -> dict[str, Any]:
    """Return a stage of dvc.lock: hashes by path."""
    entry: dict[str, Any] = {"cmd": cmd}
    for kind, hashes in (("deps", deps), ("outs", outs)):
        entry[kind] = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in hashes.items()]
    return entry | ({"params": {"params.yaml": params}} if params else {})
