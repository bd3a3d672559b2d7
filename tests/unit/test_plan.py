"""What a run would do and why, in real Git and DVC repositories."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.plan import main, make_plan, parse_setting
from flows.prepare import prepare
from stages.common.errors import AttuneError
from stages.tracking.registry import Registration
from tests.projects import PROJECT, RECIPE, Project

GRAPH = """
stages:
  clean:
    cmd: cp stages/clean/code.py cleaned && cp stages/clean/code.py rejected
    deps: [data/rows.csv, stages/clean]
    params: [seed, clean]
    outs: [cleaned, rejected]
  train:
    cmd: cp cleaned trained
    deps: [cleaned]
    params: [finetune]
    outs: [trained]
  beside:
    cmd: cp data/rows.csv beside
    deps: [data/rows.csv]
    outs: [beside]
"""
REGISTER = """  register:
    cmd: cp trained reports/registration.json && cp trained logs/registered.model
    deps: [trained]
    outs: [reports/registration.json: {cache: false, persist: true}, logs/registered.model: {cache: false}]
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which everything has run and is committed."""
    files = {"data/rows.csv": "a", "stages/clean/code.py": "1", ".gitignore": "/*.txt", "params.yaml": RECIPE}
    project = Project(tmp_path_factory.mktemp("template") / "project").begin({"dvc.yaml": GRAPH} | files)
    project.repro("-q")
    project.commit()
    return project


@pytest.fixture
def folder(template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = template.copy(tmp_path / "project").root
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("COLUMNS", "160")
    return folder


def plan(*targets: str, **parameters: Any) -> dict[str, tuple[str, str]]:
    """Return verdict and reasons of each stage."""
    return {step.node.name: (step.verdict, "; ".join(step.reasons)) for step in make_plan(targets, **parameters)}


def test_before_the_first_run_every_stage_runs_and_after_it_none(folder: Path) -> None:
    assert {verdict for verdict, _ in plan().values()} == {"up to date"}
    (folder / "dvc.lock").unlink()
    assert plan() == dict.fromkeys(("clean", "train", "beside"), ("runs", "never run"))


def test_a_param_is_shown_with_both_values_and_later_stages_may_run(folder: Path) -> None:
    Project(folder).change(lambda params: params["clean"]["length"].update(min=5))
    steps = plan()
    assert steps["clean"] == ("runs", "params: clean.length.min 3 → 5")
    assert steps["train"] == ("may run", "if clean changes what it reads")
    assert steps["beside"] == ("up to date", "")
    assert set(plan("beside")) == {"beside"}
    assert set(plan("train")) == {"clean", "train"}


def test_reasons_name_files_of_code_data_outs_and_commands(folder: Path) -> None:
    (folder / "stages/clean/code.py").write_text("2")
    (folder / "stages/clean/new.py").write_text("3")
    (folder / "trained").write_text("x")
    (folder / "data/rows.csv").write_text("b")
    (folder / "dvc.yaml").write_text(GRAPH.replace("cp cleaned trained", "cp -f cleaned trained"))
    steps = plan()
    assert steps["clean"] == ("runs", "data: data/rows.csv changed; code: stages/clean changed (code.py, new.py)")
    assert steps["train"] == ("runs", "command: cp -f cleaned trained; outs: trained changed")


def test_in_a_fresh_clone_all_comes_back_from_a_cache_and_without_one_each_stage_has_one_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cleaned", "rejected", "trained", "beside"):
        (folder / name).unlink()
    assert set(plan().values()) == {("restored", "in DVC's cache")}
    assert main([]) == 0
    assert "a run would start no stage" in capsys.readouterr().out
    steps = plan(set={"clean.length.min": 5})
    assert steps["clean"] == ("runs", "params: clean.length.min 3 → 5")
    assert steps["train"] == ("may run", "if clean changes what it reads")
    assert steps["beside"] == ("restored", "in DVC's cache")
    (folder / ".dvc/cache").rename(folder / "elsewhere")
    assert set(plan().values()) == {("runs", "not made here yet")}
    (folder / "elsewhere").rename(folder / ".dvc/cache")
    prepare(lambda _: None)
    assert {verdict for verdict, _ in plan().values()} == {"up to date"}


def test_force_runs_all_and_refresh_what_has_no_pin(folder: Path) -> None:
    assert {verdict for verdict, _ in plan(force=True).values()} == {"runs"}
    graph = GRAPH.replace("  clean:", "  ingest:\n    cmd: touch raw\n    outs: [raw]\n  clean:", 1)
    (folder / "dvc.yaml").write_text(graph)
    assert Project(folder).reproduced() == ["ingest"]
    assert plan(refresh=True)["ingest"][0] == "up to date", "every source is pinned"
    moving = {"ingest.decontaminate_against": [{"url": "https://example.org/a.csv?key=pass", "columns": {"text": "t"}}]}
    assert plan(set=moving)["ingest"][0] == "up to date"
    verdict, why = plan(set=moving, refresh=True)["ingest"]
    assert verdict == "runs" and "refresh" in why and "example.org/a.csv" in why and "pass" not in why


def test_the_plan_is_printed_and_touches_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Project(folder).git("status", "--short", "--ignored")
    assert main(["--set", "seed=14"]) == 0
    output = capsys.readouterr().out
    assert "seed 13 → 14" in output and "1 of 3 stages run, 1 may" in output
    assert Project(folder).git("status", "--short", "--ignored") == before


def test_it_needs_nothing_that_takes_seconds_though_the_registry_is_asked(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(GRAPH + REGISTER)
    for name in ("reports/registration.json", "mlflow.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    Registration("films", "0" * 64, "1" * 64, True, []).write(folder / "reports/registration.json", folder / "stamp")
    code = "import sys; from flows.plan import main; main([]); print({'prefect', 'mlflow', 'torch'} & {*sys.modules})"
    output = Project(folder).run(sys.executable, "-c", code, COLUMNS="160").stdout
    assert "MLflow's registry has no version of films with this model" in output
    assert output.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fourth"], "'fourth' is no stage of dvc.yaml"),
        (["--set", "seed"], "no value"),
        (["--set", "seed=["], "not a value of YAML"),
        (["--set", "seed.x=1"], "seed holds no keys"),
        (["--set", "finetune.learning_rat=1"], "did you mean 'learning_rate'"),
    ],
)
def test_wrong_arguments_are_errors(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_lock_file_with_conflict_marks_says_how_to_go_on(folder: Path) -> None:
    (folder / "dvc.lock").write_text("<<<<<<< HEAD\n" + (folder / "dvc.lock").read_text())
    with pytest.raises(AttuneError, match=r"git checkout --ours dvc\.lock"):
        make_plan()


def test_what_editors_and_systems_leave_in_a_folder_changes_nothing(folder: Path) -> None:
    shutil.copyfile(PROJECT / ".dvcignore", folder / ".dvcignore")
    names = [".#r.csv", "#r.csv#", "r.csv~", "~$r.xlsx", ".~lock.r.ods#", ".r.csv.swp", "._r.csv"]
    for name in (*names, ".DS_Store", "Thumbs.db"):
        (folder / "stages/clean" / name).symlink_to("me@here.1234")
        (folder / "data" / name).touch()
    prepare(pytest.fail)
    assert {verdict for verdict, _ in plan().values()} == {"up to date"}
    assert Project(folder).reproduced() == []


@pytest.mark.parametrize("leads_to", ["/nowhere/r.csv", "r.csv", ""])
def test_a_link_that_leads_nowhere_and_a_pipe_are_named(folder: Path, leads_to: str) -> None:
    file = folder / "stages/clean/r.csv"
    if leads_to:
        file.symlink_to(leads_to)
        words = f"stages/clean/r.csv is a link to {leads_to}, which is not there\n  → remove the link"
    else:
        os.mkfifo(file)
        words = "stages/clean/r.csv is neither a file nor a folder"
    for ask in (make_plan, prepare):
        with pytest.raises(AttuneError, match=words):
            ask()


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=1e-4", 1e-4), ("a.b=no", "no"), ("a.b=null", None), ("a.b=[1, x]", [1, "x"]), ("a.b=", None)],
)
def test_values_are_read_as_in_params_yaml(text: str, value: object) -> None:
    assert parse_setting(text) == ("a.b", value)
