"""Projects in temporary folders, for every test that needs one: real git, real DVC, stages that are real or toys."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import pytest
from ruamel.yaml import YAML

from stages.common.params import Params, check_params

PROJECT = Path(__file__).resolve().parents[1]
RECIPE = (PROJECT / "recipes" / "rotten-tomatoes.yaml").read_text(encoding="utf-8")
PIPELINE = ("stages", "flows", "recipes", ".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitignore",
            "dvc.yaml", "data/inbox/.gitignore")  # fmt: skip
WHO = {f"GIT_{role}_{what}": "me" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
TINY = {"vocab_size": 200, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64}  # fmt: skip
PARAMS: dict[str, Any] = {
    "task": "text-classification",
    "seed": 13,
    "ingest": {
        "sources": [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}}],
        "base_model": {"scratch": TINY},
    },
    "tokenize": {"max_length": 32},
    "register": {"model_name": "tests"},
}
DVC = {  # what `dvc init` leaves
    ".dvc/config": "[core]\n    analytics = false\n    check_update = false\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
}
TOY = {  # a pipeline of two quick stages, nothing to train
    "dvc.yaml": f"""stages:
  make:
    cmd: {sys.executable} make.py
    deps: [data/inbox, make.py]
    params: [seed]
    outs: [data/made.txt: {{persist: true}}]
  judge:
    cmd: {sys.executable} judge.py
    deps: [data/made.txt, judge.py]
    metrics: [reports/scores.json: {{cache: false, persist: true}}]
""",
    "make.py": """from pathlib import Path
inbox = "".join(file.read_text() for file in sorted(Path("data/inbox").iterdir()) if file.suffix == ".csv")
Path("data/made.txt").write_text(inbox + Path("params.yaml").read_text())
""",
    "judge.py": """from pathlib import Path
Path("reports").mkdir(exist_ok=True)
Path("reports/scores.json").write_text('{"accuracy": 0.%d}' % len(Path("data/made.txt").read_text()))
""",
    "params.yaml": "seed: 1\n",
    "constraints.txt": "prefect==1\n",
    ".gitignore": "/.attune/\n/data/*\n!/data/inbox/\n",
    "data/inbox/.gitignore": "*\n!.gitignore\n!*.dvc\n",
}
MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_USERNAME",
          "MLFLOW_TRACKING_PASSWORD")  # fmt: skip
OF_RUNS = (".attune/worktrees/*", ".git/worktrees/*", ".git/objects/*", ".git/refs/attune/*", ".git/logs/refs/attune/*",
           ".dvc/cache/*", ".dvc/tmp/*")  # fmt: skip
STAGES = """import runpy
from stages.common.pipeline.graph import read_graph
for name in read_graph():
    try:
        runpy.run_module(f"stages.{name}", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
"""
yaml = YAML()


@dataclass(frozen=True)
class Project:
    """A folder that a test may do anything to."""

    root: Path
    seconds: float = 120  # that a command may take

    def begin(self, files: Mapping[str, str | bytes]) -> Self:
        """Make it a git and DVC repository of one commit, in which nothing has run."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")
        self.commit(**DVC | files)
        return self

    def file(self, path: str, content: Any) -> Path:
        """Write a file below the project's folder: a text, bytes, or anything else as JSON."""
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def inbox(self, name: str, content: str | bytes) -> Path:
        """Put a file into data/inbox/."""
        return self.file(f"data/inbox/{name}", content)

    def params(self, **sections: Any) -> None:
        """Write a small params.yaml; sections that are not named have their defaults."""
        YAML(typ="safe", pure=True).dump(PARAMS | sections, self.root / "params.yaml")

    def change(self, change: Callable[[Any], object]) -> None:
        """Change params.yaml in place."""
        path = self.root / "params.yaml"
        data = yaml.load(path)
        change(data)
        yaml.dump(data, path)

    def use(self, recipe: str) -> None:
        """Take a recipe as params.yaml."""
        shutil.copyfile(PROJECT / "recipes" / f"{recipe}.yaml", self.root / "params.yaml")

    def run(
        self, *command: str, check: bool = True, own_group: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the virtual environment in the project; code that is not there is the repository's."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**inherited, "PATH": path, "PYTHONPATH": str(PROJECT), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=self.seconds,
            start_new_session=own_group,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS…`, as DVC would, whatever comes of it."""
        return self.run(sys.executable, *arguments, check=False, **environment)

    def git(self, *arguments: str) -> str:
        """Run git as the folder's owner does; return what it printed."""
        return self.run("git", "-c", "commit.gpgsign=false", *arguments, **WHO).stdout.strip()

    def commit(self, message: str = "mine", /, **files: str | bytes) -> str:
        """Commit these files and all else there is; return the commit."""
        for name, content in files.items():
            self.file(name, content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def dvc(self, *arguments: str) -> str:
        """Run DVC; return what it printed."""
        return self.run(sys.executable, "-m", "dvc", *arguments).stdout.strip()

    def repro(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `dvc repro`."""
        return self.run("dvc", "repro", *arguments, check=check, **environment)

    def all_stages(self) -> None:
        """Run all stages in one process, which imports torch and the others once; tell DVC of what they made."""
        self.run(sys.executable, "-c", STAGES, OMP_NUM_THREADS="1")
        self.dvc("commit", "--force", "--quiet")

    def stages_run(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        """Return the stages whose command DVC ran."""
        return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]

    def copy(self, target: Path) -> Self:
        """Return a copy of it."""
        shutil.copytree(self.root, target, symlinks=True)
        return replace(self, root=target)

    def reproduced(self) -> list[str]:
        """Do as `dvc repro` in this process, which has DVC already; return the stages that ran."""
        from dvc.repo import Repo

        with chdir(self.root), Repo() as repo:
            return [stage.name for stage in repo.reproduce()]

    def seen(self, *without: str) -> dict[str, str]:
        """Return all that its owner has: files, index, HEAD, branches, configuration; without what is the runs'."""
        paths = {path.relative_to(self.root).as_posix(): path for path in sorted(self.root.rglob("*"))}
        return {
            name: sha256(path.read_bytes()).hexdigest()
            for name, path in paths.items()
            if path.is_file() and not any(fnmatch(name, pattern) for pattern in without or OF_RUNS)
        }


def empty_project(root: Path) -> Project:
    """Make a project with the repository's own graph, small params and nothing else."""
    project = Project(root)
    project.file("dvc.yaml", (PROJECT / "dvc.yaml").read_bytes())
    project.params()
    (root / "data" / "inbox").mkdir(parents=True)
    return project


def pipeline_project(root: Path, downloads: Path) -> Project:
    """Copy the repository's sources, with a git history of one commit."""
    for name in PIPELINE:
        source, target = PROJECT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    (root / ".attune").mkdir()
    (root / ".attune" / "downloads").symlink_to(downloads)
    project = Project(root, seconds=900)
    # the default recipe, whatever experiment stands in the repository's params.yaml by now
    project.file("params.yaml", RECIPE)
    project.git("init", "-q", "-b", "main")
    project.commit("start")
    return project


def toy_project(root: Path) -> Project:
    """Make a project of two quick stages."""
    return Project(root).begin(TOY)


def tiny(params: Any) -> None:
    """Make a run of seconds of any params: a tiny untrained model, one epoch, few resamples."""
    params["ingest"]["base_model"] = {"scratch": dict(TINY)}
    params["tokenize"] = {"max_length": 32}
    params["finetune"] = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "logging_steps": 2}
    params["evaluate"] = {"bootstrap": {"resamples": 100}, "baselines": ["majority", "tfidf"]}
    params["register"] = {"model_name": "tiny"}


def params_of(**sections: Any) -> Params:
    """Return small params; sections that are not named have their defaults."""
    return check_params(PARAMS | sections)


def without_mlflow(patch: pytest.MonkeyPatch) -> None:
    """Leave a caller's MLflow alone."""
    for name in MLFLOW:
        patch.setenv(name, "")  # so that it is put back even if it was not set
        patch.delenv(name)
