"""What the unit tests share: a project in a folder of its own, and tables of records."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from ruamel.yaml import YAML
from safetensors.numpy import save

from stages.common.params import Source
from stages.common.schemas import RawRecords
from stages.ingest.expansion import Workspace
from stages.ingest.receive import receive
from stages.ingest.records import read_records

FILM_WORDS = ["film", "story", "actor", "scene", "music", "plot", "camera", "ending", "dialogue", "script"]

ROOT = Path(__file__).resolve().parents[2]

SCRATCH = {
    "vocab_size": 200,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


MODEL = {  # the files of a model that ingest takes
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": save({"embeddings": np.zeros(2, dtype=np.float32)}),
    "tokenizer.json": b"{}",
}


@dataclass(frozen=True)
class Project:
    """A folder with the repository's own graph, a small params file and whatever a test puts in."""

    root: Path

    def params(self, **sections: Any) -> None:
        """Write `params.yaml`; sections that are not named have their defaults."""
        whole: dict[str, Any] = {
            "task": "text-classification",
            "seed": 13,
            "ingest": {
                "sources": [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}}],
                "base_model": {"scratch": SCRATCH},
            },
            "tokenize": {"max_length": 32},
            "register": {"model_name": "tests"},
        }
        with (self.root / "params.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(whole | sections, file)

    def file(self, path: str, content: str | bytes) -> Path:
        """Write a file below the project's folder."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python COMMAND…` in the project's folder, as DVC would."""
        inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def received(source: Source, folder: Path, **limits: int) -> tuple[list[tuple[str, pl.DataFrame]], dict[str, Any]]:
    """Return what messages call each table of a source, the records of each, and the source's entry in the manifest.

    Downloads are kept in `folder`, where nothing else is left.
    """
    with receive(source, Workspace(folder, folder, **limits)) as (tables, entry):
        return [(table.origin, pl.concat(read_records(table, source))) for table in tables], entry


def make_records(rows: list[dict[str, str | None]]) -> pl.DataFrame:
    """Fill rows up to raw records: ids by position, two labels in turn, unless a row says otherwise."""
    filled = [
        {
            "id": f"row{at:06d}",
            "text": None,
            "text_pair": None,
            "label": ("negative", "positive")[at % 2],
            "group": None,
            "split": None,
            "source": "tests",
            "extra": None,
            **row,
        }
        for at, row in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema=dict.fromkeys(RawRecords.columns(), pl.String))
