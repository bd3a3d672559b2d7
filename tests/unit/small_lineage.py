"""A checkout whose stages take no time and whose models are registered as real ones are: real git, DVC and MLflow."""

import json
import shutil
import sqlite3
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import polars as pl
import pytest
from mlflow import MlflowClient

from flows.lineage import main
from stages.common.graph import read_graph
from stages.common.params import Params, load_params
from stages.common.serving.classifier import Package
from stages.common.stage import Run
from stages.common.tracking import packaging
from stages.common.tracking.live import LiveRun
from stages.common.tracking.packaging import package_digest
from stages.common.tracking.publish import publish_live
from stages.common.tracking.registry import STAMP, Registered, Registration
from stages.common.tracking.runs import model_digest
from tests.projects import PROJECT, Project

GRAPH = """stages:
  ingest:
    cmd: python stages/ingest/run.py
    deps: [data/inbox, stages/ingest]
    params: [seed, ingest]
    outs: [data/raw/manifest.json]
  clean:
    cmd: python stages/clean/run.py
    deps: [data/raw/manifest.json, stages/clean]
    params: [clean]
    outs:
      - data/clean/train.parquet
      - data/clean/validation.parquet
      - data/clean/test.parquet
      - data/augmented/train.parquet
      - reports/clean.json
  finetune:
    cmd: python stages/finetune/run.py
    deps: [data/clean/train.parquet, stages/finetune]
    params: [finetune]
    outs: [models/finetuned]
    plots: [reports/plots/training.csv: {cache: false}]
  evaluate:
    cmd: python stages/evaluate/run.py
    deps: [models/finetuned, data/clean/test.parquet, stages/evaluate]
    params: [evaluate]
    outs: [models/serving]
    metrics: [reports/metrics.json: {cache: false}]
  register:
    cmd: python stages/register/run.py
    deps: [models/finetuned, reports/metrics.json, stages/register]
    params: [register]
    outs:
      - reports/registration.json: {cache: false, persist: true}
      - reports/model_card.md: {cache: false, persist: true}
      - logs/registered.model: {cache: false, persist: true}
"""
START = """import hashlib, json, shutil
from pathlib import Path
from typing import Self
PARAMS, SHADE = Path("params.yaml").read_text(), 0
def put(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)
"""
INGEST = """rows = b"".join(file.read_bytes() for file in sorted(Path("data/inbox").glob("*.csv")))
source = {"origin": "data/inbox/rows.csv", "sha256": hashlib.sha256(rows).hexdigest(), "rows_read": 3}
base = {"origin": "scratch", "sha256": {"config.json": "c" * 64, "model.safetensors": "b" * 64}}
put("data/raw/manifest.json", json.dumps({"sources": [source], "base_model": base}).encode())
"""
CLEAN = """for name in ("train", "validation", "test"):
    put(f"data/clean/{name}.parquet", Path("GIVEN.parquet").read_bytes())
put("data/augmented/train.parquet", Path("GIVEN.parquet").read_bytes())
put("reports/clean.json", json.dumps({"splits": {"train": {"rows": 3}}}).encode())
"""
FINETUNE = """shutil.rmtree("models/finetuned", ignore_errors=True)
said = [line for line in PARAMS.split("\\n") if "learning_rate" in line] + [str(SHADE)]
put("models/finetuned/model.safetensors", "\\n".join(said).encode())
put("models/finetuned/vocabulary/words.txt", b"words")
put("reports/plots/training.csv", b"step,epoch,loss\\n1,0.5,0.7\\n2,1.0,0.6\\n")
"""
EVALUATE = """from stages.common.digests import sha256_path
shutil.rmtree("models/serving", ignore_errors=True)
put("models/serving/decision.json", b"{}")
digest = sha256_path(Path("models/finetuned"))
scores = {"accuracy": 0.5 + int(digest[:4], 16) / 2**18, "model": {"digest": digest}}
put("reports/metrics.json", json.dumps(scores).encode())
"""
REGISTER = "raise SystemExit('no test lets it run')\n"
PARAMS = """task: text-classification
seed: 13
ingest:
  sources: [{path: data/inbox/rows.csv, columns: {text: text, label: label}}]
  base_model: {scratch: {vocab_size: 300}}
clean: {}
finetune:
  learning_rate: 1.0e-3   # it begins with this
evaluate: {}
register: {model_name: films}
tracking: {experiment_name: trials}
"""
NAMES = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
)
IGNORED = "/.attune/\n/data/*\n!/data/inbox/\n/models/\n/logs/\n/mlflow.db\n/mlruns/\n__pycache__\n"


@dataclass(frozen=True)
class Lab(Project):
    """A checkout in which models are made and registered."""

    @property
    def said(self) -> Params:
        """What its params.yaml says."""
        return load_params(self.root / "params.yaml")

    @property
    def client(self) -> MlflowClient:
        """Its MLflow store."""
        return MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")

    def rate(self, rate: str) -> None:
        """Set the learning rate, which decides what the model is."""
        text = (self.root / "params.yaml").read_text()
        before = next(line for line in text.split("\n") if "learning_rate" in line)
        self.file("params.yaml", text.replace(before, f"  learning_rate: {rate}   # it begins with this"))

    def train(self) -> None:
        """Bring all up to date but register, with the training's run in MLflow."""
        with chdir(self.root):
            live = LiveRun(self.said, json.dumps([self.said.model_dump_json()])[:200], {"attune.threads": "1"})
            self.dvc("repro", "--quiet", "evaluate")
            live.finish(model_digest(Path("models/finetuned")), [Path("reports/plots/training.csv")])

    def register(self, passed: bool = True) -> Registered:
        """Do what register does once it has judged."""
        with chdir(self.root):
            params, package = self.said, Package.of_project()
            run = Run(read_graph()["register"], params.register_, params, Path(".attune/staging/register"))
            digests = model_digest(package.model), package_digest(package)
            registration = Registration(params.register_.model_name, *digests, passed, [])
            registration.write(run.output("reports/registration.json"), run.output(str(STAMP)))
            run.output("reports/model_card.md").write_text("# films\n")
            found = publish_live(run, package.model, registration)
            assert found is not None
            for out in run.node.outs:
                Path(out).parent.mkdir(exist_ok=True)
                shutil.copyfile(run.staging / out, out)
            shutil.rmtree(run.staging)
            return found

    def lineage(self, *arguments: str) -> int:
        """Run the program; return its exit status."""
        with chdir(self.root):
            return main([*arguments])

    def copy(self, target: Path) -> Self:
        """Return a copy that a test may do anything to; its store is a copy, too."""
        copy = super().copy(target)
        with sqlite3.connect(target / "mlflow.db") as store:
            for table, column in (
                ("runs", "artifact_uri"),
                ("experiments", "artifact_location"),
                ("logged_models", "artifact_location"),
                ("model_versions", "storage_location"),
            ):
                store.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
                    (self.root.as_uri(), target.as_uri()),
                )
        store.close()
        return copy


def make_lab(root: Path) -> Lab:
    """Make a checkout of one commit, in which nothing has run."""
    stages = {"ingest": INGEST, "clean": CLEAN, "finetune": FINETUNE, "evaluate": EVALUATE}
    root.mkdir(parents=True)
    pl.DataFrame({"id": ["a", "b", "c"]}).write_parquet(root / "GIVEN.parquet")
    return Lab(root).begin(
        {
            **{f"stages/{name}/run.py": START + body for name, body in stages.items()},
            "stages/register/run.py": REGISTER,
            "dvc.yaml": GRAPH.replace("python ", f"{sys.executable} "),
            "params.yaml": PARAMS,
            "constraints.txt": "mlflow==1\n",
            "recipes/films.yaml": "seed: 1\n",
            ".gitignore": IGNORED,
            "data/inbox/.gitignore": "*\n!.gitignore\n",
            "data/inbox/rows.csv": "text,label\na,b\n",
        }
    )


def apart(patch: pytest.MonkeyPatch) -> None:
    """Leave a caller's MLflow alone, and register without trying out what is no model."""
    for name in NAMES:
        patch.setenv(name, "")
        patch.delenv(name)
    patch.setenv("PYTHONPATH", str(PROJECT))
    patch.setattr(packaging, "EXAMPLE", None)
    patch.setattr(packaging, "_pinned", lambda package: [])
