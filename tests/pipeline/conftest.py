"""Copies of one tokenized project, for searches and cross-validations."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline import searched
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
