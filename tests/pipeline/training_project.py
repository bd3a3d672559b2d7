"""A project that has come as far as its training: a tiny untrained model, and token ids."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.schemas import TokenizedRecords
from stages.tracking.live import TRIAL_RUN
from tests.chats import make_language_model, tokenized_chats, wording
from tests.models import LABELS, QUICK, make_base, tokenized
from tests.projects import PROJECT, TINY, Project

OUTS = ("models/finetuned/model.safetensors", "reports/plots/training.csv", "reports/plots/validation.csv")
ALONE = ("dvc", "repro", "--single-item", "finetune")

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


class Training(Project):
    """A folder in which `dvc repro finetune` trains within seconds."""

    def knobs(self, **finetune: Any) -> None:
        """Write params.yaml, with this section for the training."""
        self.params(finetune={**QUICK, "bf16": False, **finetune})

    def train(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command, by default the training alone as DVC does, in a process group that `KILL_AT` can kill."""
        own = {"PYTHONPATH": str(self.root / "killer"), "OMP_NUM_THREADS": "1", TRIAL_RUN: "", **environment}
        return self.run(*(command or ALONE), check=False, own_group=True, **own)

    def outs(self) -> dict[str, bytes]:
        """Return what the training has left."""
        return {name: (self.root / name).read_bytes() for name in OUTS}

    def checkpoints(self) -> list[str]:
        """Return the folders of all trainings that left checkpoints."""
        return sorted(path.name for path in (self.root / ".attune" / "checkpoints").glob("*"))


class ChatTraining(Training):
    """The same for a language model."""

    def knobs(self, **finetune: Any) -> None:
        """See Training."""
        sources = [{"path": "data/inbox/a.jsonl", "format": "messages"}]
        ingest = {"sources": sources, "base_model": {"scratch": TINY}}
        self.params(task="causal-lm", ingest=ingest, finetune={**QUICK, "bf16": False, **finetune})


def make_training(root: Path, rows: int = 70, kind: type[Training] = Training) -> Training:
    """Make a project with these many rows to train on."""
    project = kind(root)
    shutil.copytree(PROJECT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvc/config", ".dvcignore"):
        project.file(name, (PROJECT / name).read_bytes())
    encoding: dict[str, Any] = {"labels": LABELS, "max_length": 32}
    make, encode = make_base, tokenized
    if kind is ChatTraining:
        make, encode = make_language_model, tokenized_chats
    base = make(root / "models" / "base")
    if kind is ChatTraining:
        encoding = wording(base)
    (root / "data" / "tokenized").mkdir(parents=True)
    for seed, (name, count) in enumerate({"train": rows, "validation": 31}.items()):
        table = encode(base, count, seed).with_columns(truncated=pl.lit(0))
        TokenizedRecords.write(table, root / "data" / "tokenized" / f"{name}.parquet")
    project.file("data/tokenized/encoding.json", encoding)
    project.file("killer/sitecustomize.py", KILLER)
    project.knobs()
    project.git("init", "-q")
    return project
