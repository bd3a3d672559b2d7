"""Copies of one tokenized project, for searches and cross-validations; and a Prefect server."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline import searched
from tests.pipeline.prefect_server import PrefectServer, prefect_server
from tests.projects import Project


@pytest.fixture(scope="session")
def tokenized_project(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Project:
    """A project that is run up to tokenize. For copies of it alone."""
    return searched.tokenized_project(tmp_path_factory.mktemp("tokenized") / "project", downloads)


@pytest.fixture
def copied(tokenized_project: Project, tmp_path: Path) -> Callable[..., Project]:
    """Return a function that makes a tokenized project, whose finetune trains."""
    return lambda name="project": tokenized_project.copy(tmp_path / name)


@pytest.fixture
def pretending(copied: Callable[..., Project]) -> Callable[..., Project]:
    """Return a function that makes a tokenized project, whose finetune only pretends to train."""
    return lambda name="project": searched.pretending(copied(name))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server, which has what other tests left on it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # by all workers of a session
    with prefect_server(tmp_path_factory.mktemp("prefect"), shared / "new-prefect.db") as running:
        yield running
