"""What the unit tests share: a project in a folder of its own, wheels made on the spot, tables of records."""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from ruamel.yaml import YAML

from stages.common.schemas import RawRecords

ROOT = Path(__file__).resolve().parents[2]

# The suite says the same each time; `HYPOTHESIS_PROFILE=search` looks for new counterexamples.
settings.register_profile("unit", derandomize=True, database=None, deadline=None, max_examples=60)
settings.register_profile(
    "search", database=None, deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))

SCRATCH = {
    "vocab_size": 200,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is also the working folder."""
    made = Project(tmp_path)
    made.file("dvc.yaml", (ROOT / "dvc.yaml").read_bytes())
    made.params()
    (tmp_path / "data" / "inbox").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def put_wheel(tmp_path: Path) -> Any:
    """Return a function that puts a wheel of the given members into a downloads folder, and returns the folder."""

    def put(requirement: str, members: dict[str, bytes], downloads: Path | None = None) -> Path:
        downloads = downloads or tmp_path / "downloads"
        name, _, version = requirement.partition("==")
        folder = downloads / requirement
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            for member, content in members.items():
                wheel.writestr(member, content)
        return downloads

    return put


@pytest.fixture
def records_of() -> Any:
    """Return a function that makes a table of raw records out of short rows."""
    return make_records


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
