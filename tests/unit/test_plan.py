"""What a run would do and why, in real Git and DVC repositories."""

import shutil
import sys
from pathlib import Path

import pytest

from flows.plan import Step, main, make_plan, parse_setting
from flows.prepare import prepare
from stages.common.errors import AttuneError
from stages.tracking.registry import Registration
from tests.projects import RECIPE, Project

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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("COLUMNS", "160")
    files = {"data/rows.csv": "a", "stages/clean/code.py": "1", ".gitignore": "/*.txt", "params.yaml": RECIPE}
    return Project(tmp_path).begin({"dvc.yaml": GRAPH} | files).root


def run(*command: str) -> str:
    return Project(Path()).run(*command, COLUMNS="160").stdout


def finish() -> None:
    run("dvc", "repro", "-q")
    Project(Path()).commit()


def told(steps: list[Step]) -> dict[str, tuple[str, str]]:
    return {step.node.name: (step.verdict, "; ".join(step.reasons)) for step in steps}


def test_before_the_first_run_every_stage_runs_and_after_it_none(folder: Path) -> None:
    assert told(make_plan()) == dict.fromkeys(("clean", "train", "beside"), ("runs", "never run"))
    finish()
    assert all(step.verdict == "up to date" for step in make_plan())


def test_a_param_is_told_from_what_to_what_and_later_stages_may_run(folder: Path) -> None:
    finish()
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("min: 3", "min: 5", 1))
    found = told(make_plan())
    assert found["clean"] == ("runs", "params: clean.length.min 3 → 5")
    assert found["train"] == ("may run", "if clean changes what it reads")
    assert found["beside"] == ("up to date", "")
    assert set(told(make_plan(["beside"]))) == {"beside"}
    assert set(told(make_plan(["train"]))) == {"clean", "train"}


def test_a_setting_that_is_not_written_yet_is_planned_with(folder: Path) -> None:
    finish()
    before = (folder / "params.yaml").read_bytes()
    found = told(make_plan(set={"finetune.learning_rate": 0.5e-3, "finetune.weight_decay": 0.25}))
    assert found["train"][0] == "runs" and "finetune.weight_decay" in found["train"][1]
    assert found["clean"][0] == "up to date"
    assert (folder / "params.yaml").read_bytes() == before


def test_code_is_told_by_file_data_and_lost_outs_by_path(folder: Path) -> None:
    finish()
    (folder / "stages/clean/code.py").write_text("2")
    (folder / "stages/clean/new.py").write_text("3")
    (folder / "trained").write_text("x")
    (folder / "data/rows.csv").write_text("b")
    found = told(make_plan())
    assert found["clean"] == ("runs", "data: data/rows.csv changed; code: stages/clean changed (code.py, new.py)")
    assert found["train"] == ("runs", "outs: trained changed")


def test_a_dvc_yaml_that_is_none_is_told(folder: Path) -> None:
    for text in ("[]", "stages:\n  a: {foreach: [1], do: {cmd: x}}\n", "stages:\n  a: [", ""):
        (folder / "dvc.yaml").write_text(text)
        with pytest.raises(AttuneError, match=r"dvc\.yaml is not understood"):
            make_plan()


def test_a_fresh_clone_has_one_reason_a_stage(folder: Path) -> None:
    finish()
    shutil.rmtree(folder / ".dvc/cache")
    clone(folder)
    assert set(told(make_plan()).values()) == {("runs", "not made here yet")}


def clone(folder: Path) -> None:
    for name in ("cleaned", "rejected", "trained", "beside"):
        (folder / name).unlink()


def test_with_the_cache_of_another_clone_all_comes_back_and_a_setting_runs_what_it_must(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish()
    clone(folder)
    assert set(told(make_plan()).values()) == {("restored", "in DVC's cache")}
    assert main([]) == 0
    assert "a run would start no stage" in capsys.readouterr().out
    found = told(make_plan(set={"clean.length.min": 5}))
    assert found["clean"] == ("runs", "params: clean.length.min 3 → 5")
    assert found["train"] == ("may run", "if clean changes what it reads")
    assert found["beside"] == ("restored", "in DVC's cache")
    prepare(lambda _: None)
    assert all(step.verdict == "up to date" for step in make_plan())


def test_a_command_that_changed_is_told(folder: Path) -> None:
    finish()
    (folder / "dvc.yaml").write_text(GRAPH.replace("cp cleaned trained", "cp -f cleaned trained"))
    assert told(make_plan())["train"] == ("runs", "command: cp -f cleaned trained")


def test_force_runs_all_and_refresh_what_has_no_pin(folder: Path) -> None:
    finish()
    assert {verdict for verdict, _ in told(make_plan(force=True)).values()} == {"runs"}
    graph = GRAPH.replace("  clean:", "  ingest:\n    cmd: touch raw\n    outs: [raw]\n  clean:", 1)
    (folder / "dvc.yaml").write_text(graph)
    finish()
    assert told(make_plan(refresh=True))["ingest"][0] == "up to date", "every source is pinned"
    moving = {"ingest.decontaminate_against": [{"url": "https://example.org/a.csv?key=pass", "columns": {"text": "t"}}]}
    assert told(make_plan(set=moving))["ingest"][0] == "up to date"
    verdict, why = told(make_plan(set=moving, refresh=True))["ingest"]
    assert verdict == "runs" and "refresh" in why and "example.org/a.csv" in why and "pass" not in why


def test_the_plan_is_printed_and_touches_nothing(folder: Path) -> None:
    finish()
    before = run("git", "status", "--short", "--ignored")
    assert "seed 13 → 14" in (told := run(sys.executable, "-m", "flows.plan", "--set", "seed=14"))
    assert "1 of 3 stages run, 1 may" in told
    assert run("git", "status", "--short", "--ignored") == before


def test_it_needs_nothing_that_takes_seconds_though_the_registry_is_asked(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(GRAPH + REGISTER)
    for name in ("reports/registration.json", "mlflow.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    Registration("films", "0" * 64, "1" * 64, True, []).write(folder / "reports/registration.json", folder / "stamp")
    code = "import sys; from flows.plan import main; main([]); print({'prefect', 'mlflow', 'torch'} & {*sys.modules})"
    said = run(sys.executable, "-c", code)
    assert "MLflow's registry has no version of films with this model" in said
    assert said.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fourth"], "'fourth' is no stage of dvc.yaml"),
        (["--set", "seed"], "no value"),
        (["--set", "seed=["], "not a value of YAML"),
        (["--set", "seed=many"], "seed"),
        (["--set", "seed.x=1"], "seed holds no keys"),
        (["--set", "finetune.learning_rat=1"], "did you mean 'learning_rate'"),
    ],
)
def test_what_is_wrong_is_told(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


def test_a_lock_file_with_conflict_marks_says_how_to_go_on(folder: Path) -> None:
    finish()
    (folder / "dvc.lock").write_text("<<<<<<< HEAD\n" + (folder / "dvc.lock").read_text())
    with pytest.raises(AttuneError, match=r"git checkout --ours dvc\.lock"):
        make_plan()


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=1e-4", 1e-4), ("a.b=no", "no"), ("a.b=null", None), ("a.b=[1, x]", [1, "x"]), ("a.b=", None)],
)
def test_values_are_read_as_in_params_yaml(text: str, value: object) -> None:
    assert parse_setting(text) == ("a.b", value)
