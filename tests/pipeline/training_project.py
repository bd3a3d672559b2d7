"""A project that has come as far as its training: a tiny untrained model, and token ids."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML

from stages.common.schemas import TokenizedRecords
from stages.common.tracking.live import TRIAL_RUN
from tests.conftest import PROJECT, TINY
from tests.unit.small_training import LABELS, make_base, tokenized

OUTS = (
    "models/finetuned/model.safetensors",
    "reports/plots/training.csv",
    "reports/plots/validation.csv",
)
QUICK = {
    "per_device_train_batch_size": 16,
    "num_train_epochs": 3,
    "learning_rate": 5e-3,
    "logging_steps": 3,
    "bf16": False,
}

# Python runs this as it starts. An event is an audit event (PEP 578), or "step" for a training step; without a rank,
# the whole process group is killed.
KILLER = """
import os, signal, sys
event, _, at = os.environ.get("KILL_AT", "").partition(" ")
if event and "stages.finetune" in sys.orig_argv and os.environ.get("RANK") == os.environ.get("KILL_RANK"):
    def look(happened, arguments):
        if happened == event and at in " ".join(map(str, arguments)):
            os.kill(os.getpid() if "KILL_RANK" in os.environ else 0, signal.SIGKILL)
    if event == "step":
        from torch.optim.optimizer import register_optimizer_step_post_hook as after_steps
        steps = iter(range(1, 10**6))
        after_steps(lambda *_: look("step", [f"{next(steps)}."]))
    else:
        sys.addaudithook(look)
elif at := os.environ.get("SPOIL_AT"):
    from torch.optim.optimizer import register_optimizer_step_post_hook as after_steps
    steps = iter(range(1, 10**6))
    def spoil(optimizer, *_):
        if next(steps) == int(at):
            optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))
    after_steps(spoil)
"""


@dataclass(frozen=True)
class Training:
    """A folder in which `dvc repro finetune` trains within seconds."""

    root: Path

    def params(self, **finetune: Any) -> None:
        """Write params.yaml, with this section for the training."""
        whole = {
            "task": "text-classification",
            "seed": 13,
            "ingest": {
                "sources": [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}}],
                "base_model": {"scratch": TINY},
            },
            "tokenize": {"max_length": 32},
            "register": {"model_name": "tests"},
            "finetune": QUICK | finetune,
        }
        with (self.root / "params.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(whole, file)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process group of its own, which `KILL_AT` can kill as a whole."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "PYTHONPATH": str(self.root / "killer"), "OMP_NUM_THREADS": "1", TRIAL_RUN: ""}
        return subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, **own, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            start_new_session=True,
        )

    def repro(self, *how: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the training alone, as DVC does."""
        return self.run("dvc", "repro", "--single-item", *how, "finetune", **environment)

    def outs(self) -> dict[str, bytes]:
        """Return what the training has left."""
        return {name: (self.root / name).read_bytes() for name in OUTS}

    def checkpoints(self) -> list[str]:
        """Return the folders of all trainings that left checkpoints."""
        return sorted(path.name for path in (self.root / ".attune" / "checkpoints").glob("*"))


def make_training(root: Path, rows: int = 70) -> Training:
    """Make a project with these many rows to train on."""
    root.mkdir(parents=True)
    shutil.copytree(PROJECT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvc/config", ".dvcignore"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(PROJECT / name, root / name)
    base = make_base(root / "models" / "base")
    (root / "data" / "tokenized").mkdir(parents=True)
    for seed, (name, count) in enumerate({"train": rows, "validation": 31}.items()):
        table = tokenized(base, count, seed).with_columns(truncated=pl.lit(0))
        TokenizedRecords.write(_typed(table), root / "data" / "tokenized" / f"{name}.parquet")
    encoding = {"labels": LABELS, "max_length": 32}
    (root / "data" / "tokenized" / "encoding.json").write_text(json.dumps(encoding))
    (root / "killer").mkdir()
    (root / "killer" / "sitecustomize.py").write_text(KILLER)
    project = Training(root)
    project.params()
    project.run("git", "init", "-q")
    return project


def _typed(table: pl.DataFrame) -> pl.DataFrame:
    types = {"input_ids": pl.List(pl.Int32), "token_type_ids": pl.List(pl.Int8), "labels": pl.Int64}
    return table.cast(types | {"length": pl.Int32, "truncated": pl.Int32}).select(TokenizedRecords.columns())
