"""`make summary`: the last run on one screen, whatever of it exists."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import summary
from tests.projects import Project
from tests.unit.test_artifact import CLEAN, NEW, put

DVC = """
stages:
  clean: {cmd: "true", outs: [a]}
  register: {cmd: "true", deps: [a], outs: [b]}
  publish: {cmd: "true", deps: [b]}
"""


@pytest.fixture(autouse=True)
def graphed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a graph of its own."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("ATTUNE_STARTED", "1500")
    project.file("dvc.yaml", DVC)
    return project


def report(path: str, content: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    assert summary.main() == 0
    return " ".join(capsys.readouterr().out.split())


def test_before_the_first_run_and_outside_the_project_it_says_what_to_do(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert summary.main() == 1
    assert "make run" in capsys.readouterr().err
    (project.root / "dvc.yaml").unlink()
    assert summary.main() == 1
    assert "project's folder" in capsys.readouterr().err


def test_everything_is_on_one_screen_and_stages_that_did_not_run_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    report("reports/metrics.json", NEW.metrics)
    report("reports/clean.json", CLEAN)
    report("data/raw/manifest.json", {"rows_read": 4100})
    put(NEW.registration)
    report("logs/clean.json", {"seconds": 1.25, "peak_mib": 300, "finished": 1000.0})
    report("logs/register.json", {"seconds": 2.5, "peak_mib": 400, "finished": 2000.0})
    text = shown(capsys)
    assert "Promoted: reviews version 4 is the champion now." in text
    assert "4,100 rows, 3,900 kept (train 3,400, test 500), 200 rejected" in text
    assert "this model 0.8000 [0.7000, 0.9000] 0.8000 [0.7000, 0.9000] 0.0300" in text
    assert "clean cached 1.2 peak 300 MiB register success 2.5 peak 400 MiB publish cached – from the cache" in text
    assert "models:/reviews@champion: make ui, then" in text


def test_a_model_that_was_not_registered_from_here_is_said_to_be_elsewhere(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another checkout has registered it, or an earlier run; what else does not exist is left out."""
    report("reports/metrics.json", NEW.metrics)
    put(NEW.registration)
    (project.root / "logs" / "registered.json").unlink()
    text = shown(capsys)
    assert "reviews was not registered from here: make champion shows the registry" in text
    assert "kept" not in text and "models:/" not in text
