"""What a run does first: it has `register` run where the registry lacks the model, and only there, as the plan says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from dvc.repo import Repo
from mlflow import MlflowClient

from flows.plan import make_plan
from flows.prepare import prepare
from stages.common.errors import AttuneError
from stages.common.pipeline.dvc_files import BROKEN, KEPT, check_lock, keep_lock, mend
from stages.tracking.package import PACKAGE_TAG
from stages.tracking.registry import REGISTRATION, STAMP, Registration, version_of
from stages.tracking.runs import MODEL_TAG
from tests.projects import PROJECT, RECIPE, Project, without_mlflow
from tests.waiting import until

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
    assert run() == (
        ["register runs: MLflow's registry has no version of films with this model and its files"],
        ["register"],
    )
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


@pytest.mark.parametrize("made", [False, True])
def test_a_model_whose_files_were_deleted_is_registered_again(client: MlflowClient, made: bool, tmp_path: Path) -> None:
    client.delete_model_version("films", "1")
    tags, folder = {PACKAGE_TAG: FILMS.package}, tmp_path / "mlruns 1"
    client.create_model_version("films", folder.as_uri(), tags=tags)
    if made:
        Project(folder).file("MLmodel", "")
    assert FILMS.known == made and version_of(client, FILMS) == (2 if made else None)


# ── what a kill leaves ────────────────────────────────────────────────────────────────────────────────────────────────
LIST = Path(".dvc/tmp/rwlock")
CONFLICT = "<<<<<<< HEAD\n{0}=======\n{0}>>>>>>> other\n"


def test_a_lock_that_a_kill_left_cut_off_anywhere_is_put_back_and_nothing_runs_again(client: MlflowClient) -> None:
    prepare(pytest.fail)
    lock = Path("dvc.lock")
    whole = lock.read_bytes()
    for left in [*(whole[:end] for end in range(len(whole))), b"\0" * len(whole), b"\xff" + whole]:
        lock.write_bytes(left)
        with pytest.raises(AttuneError, match=r"^dvc.lock.*\n.*`make run` puts the last whole one back"):
            check_lock()
        lines: list[str] = []
        mend(log=lines.append)
        assert lock.read_bytes() == whole == KEPT.read_bytes() and BROKEN.read_bytes() == left
        assert len(lines) == 1 and lines[0].startswith("dvc.lock") and "the last whole one is back" in lines[0]
    assert run() == ([], [])


def test_a_lock_with_a_conflict_or_without_a_copy_is_named_and_stays_as_it_is(client: MlflowClient) -> None:
    lock, whole = Path("dvc.lock"), Path("dvc.lock").read_text()
    keep_lock()
    lock.write_text(conflict := CONFLICT.format(whole))
    with pytest.raises(AttuneError, match=r"dvc.lock, line 1: a merge has .*\n.*git checkout --ours dvc.lock"):
        prepare()
    assert (lock.read_text(), KEPT.read_text()) == (conflict, whole)
    KEPT.unlink()
    lock.write_text("")
    with pytest.raises(AttuneError, match=r"dvc.lock is empty.*no earlier one is kept\n.*git checkout dvc.lock"):
        prepare()
    assert not lock.read_text()


def test_a_later_lock_replaces_the_copy(client: MlflowClient) -> None:
    keep_lock()
    lock = Path("dvc.lock")
    lock.write_text(later := lock.read_text() + "  later:\n    cmd: true\n")
    mend(log=pytest.fail)
    assert lock.read_text() == KEPT.read_text() == later


@pytest.mark.parametrize("left", ["", "{", '{"write": {"a', "\0"])
def test_a_broken_list_of_readers_and_writers_is_removed_and_a_whole_one_stays(client: MlflowClient, left: str) -> None:
    LIST.write_text(whole := '{"write": {"a": {"pid": 1, "cmd": "b"}}, "read": {"a": [{"pid": 1, "cmd": "b"}]}}')
    mend(log=pytest.fail)
    assert LIST.read_text() == whole
    LIST.write_text(left)
    mend(log=(lines := []).append)
    assert not LIST.exists() and lines == [".dvc/tmp/rwlock was left half-written by a DVC that was killed: removed"]


@pytest.mark.parametrize("left", ["not waited for", "its id used again"])
def test_a_list_of_processes_that_have_ended_is_removed(client: MlflowClient, left: str) -> None:
    """DVC only asks whether there is a process of that id: what was killed would block every run."""
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as process:
        process.stdout.read()  # until it has ended; nobody asks for its status
        reused = left == "its id used again"
        number = os.getpid() if reused else process.pid
        LIST.write_text(json.dumps({"write": {"a": {"pid": number, "cmd": "dvc repro"}}}))
        if reused:
            os.utime(LIST, (0, 0))
        until(lambda: reused or psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
        mend(log=(lines := []).append)
    assert not LIST.exists() and lines == [".dvc/tmp/rwlock names a DVC that was killed: removed"]
