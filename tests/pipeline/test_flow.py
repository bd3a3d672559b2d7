"""The pipeline as a Prefect flow, on Prefect's own temporary server."""

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tests.conftest import Project, make_project, tiny

STAGES = ["ingest", "clean", "augment", "tokenize", "finetune", "export", "evaluate", "register"]


@pytest.fixture(scope="module")
def flowed(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Project:
    project = make_project(tmp_path_factory.mktemp("flow") / "project", downloads)
    rows = "\n".join(f"{'fine' if n % 2 else 'dull'} thing number {n} {n * 7919},{'ab'[n % 2]}" for n in range(80))
    project.inbox("rows.csv", "text,label\n" + rows)
    project.use("own-csv")

    def own_rows(params):
        params["ingest"]["sources"] = [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}}]
        tiny(params)

    project.params(own_rows)
    return project


def run_flow(project: Project, check: bool = True):
    home = str(project.root.parent / "prefect")
    return project.run("python", "-m", "flows.pipeline", check=check, PREFECT_HOME=home, PREFECT_LOGGING_LEVEL="INFO")


def test_the_flow_runs_each_stage_once_as_a_task_of_its_name_and_then_finds_all_cached(flowed: Project) -> None:
    first = run_flow(flowed)
    assert "  ".join(f"{name}: success" for name in STAGES) in first.stdout + first.stderr
    lock = (flowed.root / "dvc.lock").read_bytes()
    second = run_flow(flowed)
    assert "  ".join(f"{name}: cached" for name in STAGES) in second.stdout + second.stderr
    assert (flowed.root / "dvc.lock").read_bytes() == lock
    with sqlite3.connect(flowed.root.parent / "prefect" / "prefect.db") as store:
        names = [name for (name,) in store.execute("select name from task_run order by start_time")]
        states = {state for (state,) in store.execute("select state_type from task_run")}
    assert names == STAGES * 2
    assert states == {"COMPLETED"}
    assert flowed.stages_run(flowed.repro()) == [], "dvc and the flow agree on what is up to date"


def test_a_failed_stage_fails_the_flow_with_its_last_lines(flowed: Project) -> None:
    params = (flowed.root / "params.yaml").read_text()
    flowed.params(lambda params: params["clean"].update(length={"min": 9000, "max": 9001}))
    try:
        done = run_flow(flowed, check=False)
    finally:
        (flowed.root / "params.yaml").write_text(params)
    assert done.returncode == 1
    assert "the stage clean failed; its last lines" in done.stdout + done.stderr
    assert "not one labelled row" in done.stdout + done.stderr
    assert json.loads((flowed.root / "reports" / "metrics.json").read_text())["rows"] > 0


def test_a_stage_past_its_time_is_ended_with_its_children(tmp_path: Path) -> None:
    from flows.stage_process import reproduce

    slow = Project(tmp_path / "slow")
    slow.root.mkdir()
    slow.run("git", "init", "-q")
    slow.run("dvc", "init", "-q")
    (slow.root / "dvc.yaml").write_text(
        "stages:\n  slow:\n    cmd: sleep 301 & sleep 302; echo done > out\n    outs: [out]\n"
    )
    lines: list[str] = []
    started = time.perf_counter()
    outcome = reproduce("slow", timeout=4, log=lines.append, root=slow.root)
    assert outcome.state == "timeout"
    assert time.perf_counter() - started < 30
    assert slow.run("pgrep", "-f", "sleep 30[12]", check=False).stdout == ""


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("15m", 900), ("2h", 7200), (90, 90), ("1.5h", 5400)])
def test_durations_are_read(text: str | int, seconds: float) -> None:
    from flows.stage_process import seconds_of

    assert seconds_of(text) == seconds


def test_a_wrong_duration_says_how_to_write_one() -> None:
    from flows.stage_process import seconds_of

    with pytest.raises(ValueError, match="write 30s, 15m or 2h"):
        seconds_of("soon")
