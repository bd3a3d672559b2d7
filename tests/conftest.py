"""What all tests share: projects in temporary folders, tiny models, and how hard hypothesis searches."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dvc  # noqa: F401  # its loggers keep the streams of this moment: those of a test would be closed later
import pytest
from hypothesis import HealthCheck, settings

from tests.projects import PROJECT, Project, empty_project, pipeline_project, toy_project

if TYPE_CHECKING:
    import polars as pl

# The suite says the same each time; `HYPOTHESIS_PROFILE=search` looks for new counterexamples.
settings.register_profile("unit", derandomize=True, database=None, deadline=None, max_examples=30)
settings.register_profile(
    "search", database=None, deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first what forks workers of a DataLoader: in a process that has run whole pipelines they died.

    All tests that set `dataloader_num_workers` stand in that file.
    """
    items.sort(key=lambda item: item.path.name != "test_checkpoints.py")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project with the repository's own graph, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    return empty_project(tmp_path)


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A pipeline of two quick stages, in which nothing has run, with a file in the inbox. For copies of it alone."""
    project = toy_project(tmp_path_factory.mktemp("toy") / "home")
    project.inbox("rows.csv", "a\n")
    return project


@pytest.fixture
def checkout(toy_template: Project, tmp_path: Path) -> Project:
    """Somebody's own checkout of it."""
    return toy_template.copy(tmp_path / "home")


@pytest.fixture
def pipeline(tmp_path: Path, downloads: Path) -> Project:
    """A fresh copy of the whole pipeline."""
    return pipeline_project(tmp_path / "project", downloads)


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels that one test has downloaded are there for the next; those of the checkout to begin with."""
    folder = tmp_path_factory.mktemp("downloads")
    existing = PROJECT / ".attune" / "downloads"
    if existing.exists():
        shutil.copytree(existing, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny base model. For reading alone, as the next one."""
    from tests.models import make_base

    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def splits(base: Path) -> "dict[str, pl.DataFrame]":
    """Tokenized rows to train on in a moment: 4 steps of 16 rows an epoch."""
    from tests.models import tokenized

    return {"train": tokenized(base, 64, 0), "validation": tokenized(base, 32, 1)}


@pytest.fixture(scope="session")
def tiny_model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model with a head, as `models/finetuned`."""
    from tests.models import make_finetuned

    return make_finetuned(base, tmp_path_factory.mktemp("finetuned"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_registered_models()
    return file


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Train with one thread, where torch is used: tiny models are done sooner without threads that wait for others."""
    if not (torch := sys.modules.get("torch")):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
