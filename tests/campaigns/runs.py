"""A small project of real stages, a run of it that can be killed, and what such a run leaves."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common.digests import sha256_path
from stages.common.pipeline.graph import read_graph
from tests.pipeline.searched import rows
from tests.projects import PROJECT, Project, pipeline_project, tiny

COMMANDS = {  # as people start them, with the libraries that are installed
    "make": ("make", "-o", ".venv/.installed", "run"),
    "flow": ("make", "-o", ".venv/.installed", "flow"),
}
MOST_SECONDS = 380.0


def small_project(root: Path) -> Project:
    """Make a project of 150 rows and a tiny model, in which nothing has run."""
    project = pipeline_project(root, root.parent)
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        project.file(name, (PROJECT / name).read_bytes())
    project.inbox("rows.csv", "\n".join(["text,label", *rows(150), ""]))
    project.use("own-csv")

    def small(params: Any) -> None:
        columns = {"text": "text", "label": "label"}
        params["ingest"]["sources"] = [{"path": "data/inbox/rows.csv", "columns": columns}]
        tiny(params)
        params["clean"] = {"near_duplicates": {"enabled": False}, "label_issues": {"action": "off"}}
        params["finetune"] |= {"save_steps": 2, "torch_num_threads": 1}

    project.change(small)
    project.commit("small")
    (root / ".venv").symlink_to(sys.prefix)
    return project


@dataclass
class Run:
    """A run and all that it said; `look` sees the lines so far, and kills the whole process group by saying so."""

    project: Project
    command: str = "make"
    lines: list[tuple[float, str]] = field(default_factory=list)  # seconds after the start, and what was said

    def go(self, look: Callable[["Run", float], bool] = lambda run, seconds: False) -> int:
        """Run to the end, or to the kill; return the exit status."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
        homes = {"PREFECT_HOME": str(self.project.root.parent / "prefect"), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            COMMANDS[self.command], cwd=self.project.root, env={**inherited, **homes, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        started, rest, ended = time.monotonic(), "", False
        try:
            while not ended:
                ended = process.poll() is not None  # before the last read
                seconds = time.monotonic() - started
                *whole, rest = (rest + (process.stdout.read() or b"").decode(errors="replace")).split("\n")
                self.lines += [(seconds, line) for line in whole]
                if not ended and (look(self, seconds) or seconds > MOST_SECONDS):
                    break
                time.sleep(0.002)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def times(self, words: str) -> list[float]:
        return [seconds for seconds, line in self.lines if words in line]

    def stages(self, words: str = ": done in") -> list[str]:
        """Return the stages that have ended, or of which something else was said."""
        graph = read_graph(PROJECT)
        return [name for _, line in self.lines for name in graph if f"{name}{words}" in line]


def left(project: Project) -> dict[str, Any]:
    """Return the digests of dvc.lock and all outs, and what MLflow has registered."""
    outs = [out for node in read_graph(project.root).values() for out in node.outs]
    paths = {name: project.root / name for name in ["dvc.lock", *outs]}
    digests: dict[str, Any] = {name: sha256_path(path) if path.exists() else None for name, path in paths.items()}
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        for table in ("model_versions", "registered_model_aliases"):
            digests[table] = database.execute(f"SELECT name, version FROM {table} ORDER BY version").fetchall()
    return digests


def differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    names = [name for name in one if one[name] != other[name]]
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
