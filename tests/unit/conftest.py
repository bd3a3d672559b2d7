"""Fixtures of the unit tests."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_project import ROOT, Project, make_records


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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_registered_models()
    return file


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny base model."""
    from small_training import make_base

    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Train with one thread: tiny models are done sooner without threads that wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
