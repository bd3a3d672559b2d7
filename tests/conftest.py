"""Whole projects in temporary folders: real git, real DVC, real stages; and how hard hypothesis searches."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from ruamel.yaml import YAML

PROJECT = Path(__file__).resolve().parent.parent
FILES = (
    "stages",
    "flows",
    "recipes",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
)
yaml = YAML()

# The suite says the same each time; `HYPOTHESIS_PROFILE=search` looks for new counterexamples.
settings.register_profile("unit", derandomize=True, database=None, deadline=None, max_examples=30)
settings.register_profile(
    "search", database=None, deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))


@dataclass(frozen=True)
class Project:
    """A copy of the project that a test may do anything to."""

    root: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the virtual environment in the project."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**inherited, "PATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def repro(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `dvc repro`."""
        return self.run("dvc", "repro", *arguments, check=check, **environment)

    def params(self, change: Callable[[Any], None]) -> None:
        """Change params.yaml in place."""
        path = self.root / "params.yaml"
        data = yaml.load(path)
        change(data)
        yaml.dump(data, path)

    def use(self, recipe: str) -> None:
        """Take a recipe as params.yaml."""
        shutil.copyfile(self.root / "recipes" / f"{recipe}.yaml", self.root / "params.yaml")

    def stages_run(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        """Return the stages whose command DVC ran."""
        return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]

    def inbox(self, name: str, content: str | bytes) -> Path:
        """Put a file into data/inbox/."""
        path = self.root / "data" / "inbox" / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels that one test has downloaded are there for the next; those of the checkout to begin with."""
    folder = tmp_path_factory.mktemp("downloads")
    existing = PROJECT / ".attune" / "downloads"
    if existing.exists():
        shutil.copytree(existing, folder, dirs_exist_ok=True)
    return folder


def make_project(root: Path, downloads: Path) -> Project:
    """Copy the project's sources to `root`, with a git history of one commit."""
    root.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        source, target = PROJECT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    # the default recipe, whatever experiment stands in params.yaml by now
    shutil.copyfile(PROJECT / "recipes" / "rotten-tomatoes.yaml", root / "params.yaml")
    (root / "data" / "inbox").mkdir(parents=True)
    shutil.copyfile(PROJECT / "data" / "inbox" / ".gitignore", root / "data" / "inbox" / ".gitignore")
    (root / ".attune").mkdir()
    (root / ".attune" / "downloads").symlink_to(downloads)
    project = Project(root)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        project.run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", *command)
    return project


@pytest.fixture
def project(tmp_path: Path, downloads: Path) -> Project:
    """A fresh copy of the project."""
    return make_project(tmp_path / "project", downloads)


TINY = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def tiny(params: Any) -> None:
    """Make a run of seconds of any params: a tiny untrained model, one epoch, few resamples."""
    params["ingest"]["base_model"] = {"scratch": dict(TINY)}
    params["tokenize"] = {"max_length": 32}
    params["finetune"] = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "logging_steps": 2}
    params["evaluate"] = {"bootstrap": {"resamples": 100}, "baselines": ["majority", "tfidf"]}
    params["register"] = {"model_name": "tiny"}
