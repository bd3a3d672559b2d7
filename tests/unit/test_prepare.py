"""What a run does first: it has `register` run where the registry lacks the model, and only there, as the plan says."""

import shutil
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlflow import MlflowClient

from flows.plan import make_plan
from flows.prepare import prepare
from stages.tracking.package import PACKAGE_TAG
from stages.tracking.registry import REGISTRATION, STAMP, Registration
from stages.tracking.runs import MODEL_TAG
from tests.projects import PROJECT, RECIPE, Project, without_mlflow

FILMS = Registration("films", "0" * 64, "1" * 64, True, [])
GRAPH = f"""stages:
  register:
    cmd: {sys.executable} register.py
    deps: [register.py]
    outs: [{REGISTRATION}: {{cache: false, persist: true}}, {STAMP}: {{cache: false, persist: true}}]
"""
REGISTER = f"from stages.tracking.registry import *\n{FILMS!r}.write(REGISTRATION, STAMP)\n"
FILES = {"dvc.yaml": GRAPH, "register.py": REGISTER, str(REGISTRATION): "", "params.yaml": RECIPE}
OLD = '{"model_name": "films", "model": "0", "promoted": true, "champion_gate": null, "alias": "champion", "gates": []}'


@pytest.fixture(scope="module")
def template(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `register` has run and the model is registered."""
    project = Project(tmp_path_factory.mktemp("template") / "project")
    for name, content in FILES.items():
        project.file(name, content)
    shutil.copyfile(empty_store, project.root / "mlflow.db")
    Repo.init(str(project.root), no_scm=True).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT))
        assert project.reproduced() == ["register"]
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    client.create_registered_model("films")
    client.create_model_version("films", "runs:/x/model", tags={MODEL_TAG: FILMS.model, PACKAGE_TAG: FILMS.package})
    return project


@pytest.fixture
def client(template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The registry of a copy of it, which is the working folder."""
    without_mlflow(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(template.copy(tmp_path / "project").root)
    return MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")


def run() -> tuple[list[str], list[str]]:
    """Do as `make run` does; return its first lines, and the stages that run: those that the plan names."""
    planned, lines = [step.node.name for step in make_plan() if step.verdict != "up to date"], []
    prepare(lines.append)
    ran = Project(Path()).reproduced()
    assert planned == ran
    return lines, ran


def test_a_model_that_the_registry_lacks_is_registered_again_and_that_is_said(client: MlflowClient) -> None:
    stamp = STAMP.read_bytes()
    client.delete_model_version("films", "1")
    assert run() == (["register runs: MLflow's registry has no version of films with this model"], ["register"])
    assert STAMP.read_bytes() == stamp


def test_where_the_registry_has_the_model_nothing_runs_though_a_new_worktree_has_no_stamp(client: MlflowClient) -> None:
    stamp = STAMP.read_bytes()
    shutil.rmtree(STAMP.parent)
    for _ in range(2):
        assert run() == ([], [])
        assert STAMP.read_bytes() == stamp, "as register writes it"


@pytest.mark.parametrize("content", [OLD, '{"model_name"'])
def test_a_report_of_another_format_breaks_nothing_and_is_made_again(client: MlflowClient, content: str) -> None:
    REGISTRATION.write_text(content)
    assert run() == ([], ["register"])
    assert Registration.read() == FILMS


def test_a_registry_that_does_not_answer_costs_a_warning_and_removes_nothing(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:geheim@127.0.0.1:9")
    prepare(pytest.fail)
    message = capsys.readouterr().err
    assert "warning: MLflow" in message and "make register" in message and "geheim" not in message
    assert STAMP.exists()
    assert run() == ([], []), "the plan, too, does without it"
