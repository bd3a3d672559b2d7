"""The pipeline as a Prefect flow on a real server, and what happens when things go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.execution import stage_process
from flows.execution.stage_process import seconds_of
from flows.execution.stage_tasks import StageFailed
from flows.pipeline import LOCK, main, pipeline
from stages.common.errors import AttuneError
from stages.common.locks import in_turn
from tests.pipeline.prefect_server import PrefectServer, copy_database
from tests.projects import PROJECT, RECIPE, Project, without_mlflow
from tests.waiting import until

FLOW = (sys.executable, "-m", "flows.pipeline")
HEEDING = ("env", "--default-signal=INT")  # what is started in the background ignores Ctrl-C, and so would its children
SECRET = "s3cr3t-t0ken-of-nobody"

# Stages that do what the test asks for: they append a line to ran.txt, and read what to do from do.json.
WORK = """
import json, os, subprocess, sys, time
from pathlib import Path
name = sys.argv[1]
with open("ran.txt", "a") as file:
    print(name, file=file)
do = json.loads(Path("do.json").read_text()).get(name, {}) if Path("do.json").exists() else {}
count = Path("ran.txt").read_text().split().count(name)
print(f"{name} says hello", flush=True)
if do.get("say"):
    print(do["say"], flush=True)
if count <= do.get("fail", 0):
    sys.exit(f"{name} fails on try {count}")
if do.get("leave"):
    Path("child").write_text(str(subprocess.Popen(["sleep", "3000"]).pid))
if do.get("break"):
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text() + "  bad: [")
if do.get("sleep"):
    stubborn = "signal.signal(15, signal.SIG_IGN)" if do.get("stubborn") else "pass"
    child = subprocess.Popen([sys.executable, "-c", f"import signal, time; {stubborn}; time.sleep(3000)"])
    Path("child").write_text(str(child.pid))
    time.sleep(do["sleep"])
    child.kill()
Path(f"{name}.out").write_text(name)
"""
GRAPH = """
stages:
  first:
    desc: The first of three
    cmd: python work.py first
    deps: [work.py]
    params: [seed]
    outs: [first.out: {persist: true}]
    meta: {retries: 2, retry_delay: 1s, timeout: 60s}
  second:
    cmd: python work.py second
    deps: [first.out]
    outs: [second.out: {persist: true}]
    meta: {timeout: 60s}
  third:
    cmd: python work.py third
    deps: [second.out]
    outs: [third.out: {persist: true}]
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    files = {"work.py": WORK, "dvc.yaml": GRAPH, "params.yaml": RECIPE}
    return Project(tmp_path_factory.mktemp("template") / "small").begin(files)


@pytest.fixture
def small(
    tmp_path: Path, template: Project, server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator["Small"]:
    """A project in which nothing has run, as the working folder of this process, which talks to the server."""
    project = Small(template.copy(tmp_path / "small").root, server=server)
    monkeypatch.chdir(project.root)
    without_mlflow(monkeypatch)
    with temporary_settings({PREFECT_API_URL: server.environment["PREFECT_API_URL"]}):
        yield project
        for worker in (APILogWorker, EventsWorker):
            worker.drain_all(timeout=10)


@dataclass(frozen=True)
class Small(Project):
    """A project of three stages that take no time, run by the real flow."""

    server: PrefectServer = field(kw_only=True)

    def do(self, **what: dict[str, Any]) -> None:
        self.file("do.json", what)

    def start(self, **more: str) -> "subprocess.Popen[str]":
        """Start the flow's program."""
        environment = {**self.server.environment, "PYTHONPATH": str(PROJECT), **more}
        return subprocess.Popen(
            [*HEEDING, *FLOW],
            cwd=self.root,
            env={name: value for name, value in environment.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ran(self) -> list[str]:
        path = self.root / "ran.txt"
        return path.read_text().split() if path.exists() else []

    def nothing_runs(self) -> bool:
        """Whether the process that a stage has started is gone."""
        return not psutil.pid_exists(int((self.root / "child").read_text()))

    def last_run(self) -> dict[str, Any]:
        only = {"flows": {"name": {"any_": ["attune"]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
        runs: list[dict[str, Any]] = self.server.post("flow_runs/filter", **only)
        return runs[0]

    def tasks(self) -> list[str]:
        """The states of the tasks of the last run, in order."""
        only = {"flow_runs": {"id": {"any_": [self.last_run()["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        states = {task["name"]: task["state"]["name"] for task in self.server.post("task_runs/filter", **only)}
        return [states[name] for name in ("first", "second", "third") if name in states]


def states(*names: str) -> dict[str, str]:
    return dict(zip(("first", "second", "third"), names, strict=True))


def test_a_stage_that_fails_succeeds_on_its_next_try_and_leftovers_do_not_hold_up_a_run(small: Small) -> None:
    (small.root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (small.root / ".dvc" / "tmp" / "rwlock").write_text("")  # as a DVC that was killed leaves it
    small.do(first={"fail": 1, "leave": True})
    started = time.monotonic()
    assert pipeline() == states("success", "success", "success")
    assert time.monotonic() - started < 45
    until(small.nothing_runs)
    assert small.ran() == ["first", "first", "second", "third"]
    assert small.tasks() == ["Completed"] * 3
    assert "first says hello" in (small.root / "logs" / "first.log").read_text()


def test_a_stage_that_fails_for_good_is_named_with_its_last_lines_and_no_secret_is_told(small: Small) -> None:
    pipeline()
    before = (small.root / "dvc.lock").read_bytes()
    (small.root / "ran.txt").unlink()
    url = "https://user:" + SECRET + "@example.org/rows.csv?sig=" + SECRET
    small.do(first={"say": f"reading {url} with {SECRET}"}, second={"say": f"token {SECRET}", "fail": 9})
    more = {"PYTHONPATH": str(PROJECT), "MY_API_TOKEN": SECRET}
    done = small.server.run(*FLOW, "--force", cwd=small.root, check=False, **more)
    output = done.stdout + done.stderr
    assert done.returncode == 1 and SECRET not in output
    assert "first: success  second: failed  third: skipped" in output
    assert small.tasks() == ["Completed", "Failed", "Skipped"]
    assert "the stage second failed; its last lines" in output and "second fails on try 1" in output
    assert "run again: what is done is not done again (the whole log: logs/second.log)" in output
    assert "Traceback" not in output
    assert small.last_run()["state"]["type"] == "FAILED" and "second" in small.last_run()["state"]["message"]
    assert (small.root / "dvc.lock").read_bytes() == before and (small.root / "third.out").exists()
    assert "reading https://" in (small.root / "logs" / "first.log").read_text()
    assert not [path for path in (small.root / "logs").iterdir() if SECRET in path.read_text()]
    only = {"logs": {"flow_run_id": {"any_": [small.last_run()["id"]]}}, "sort": "TIMESTAMP_DESC"}
    until(lambda: "Finished in state Failed" in json.dumps(small.server.post("logs/filter", **only)), 20)  # in batches
    for what, body in {"logs": only, "artifacts": {}, "flow_runs": {}, "task_runs": {}}.items():
        answer = json.dumps(small.server.post(f"{what}/filter", **body))
        assert SECRET not in answer and len(answer) > 100, what
    assert pipeline() == states("cached", "cached", "cached")


def test_a_stage_past_its_time_is_ended_with_its_children(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_process, "GRACE_SECONDS", 1.0)
    graph = small.root / "dvc.yaml"
    graph.write_text(graph.read_text().replace("retries: 2, retry_delay: 1s, timeout: 60s", "timeout: 4s"))
    small.do(first={"sleep": 1000, "stubborn": True})
    with pytest.raises(StageFailed, match="the stage first took longer than 4s"):
        pipeline()
    until(small.nothing_runs)  # not even one that ignores SIGTERM
    assert small.ran() == ["first"]


def test_a_flow_that_is_killed_leaves_nothing_running_and_can_be_run_again(small: Small) -> None:
    small.do(second={"sleep": 1000})
    flow = small.start()
    until((small.root / "child").exists)
    processes = psutil.Process(flow.pid).children(recursive=True)
    flow.kill()
    flow.communicate(timeout=60)
    assert not psutil.wait_procs(processes, 20)[1]
    small.do()
    assert pipeline() == states("cached", "success", "success")


def test_a_run_cancelled_on_the_server_ends_with_all_its_processes(small: Small) -> None:
    """By a worker, as in a deployment."""
    (small.root / "flow.py").write_text("from flows.pipeline import pipeline\n")
    small.do(first={"sleep": 1000})
    small.server.post("work_pools/", name="here", type="process")
    made = small.server.post(
        "deployments/",
        name="small",
        flow_id=small.server.post("flows/", name="attune")["id"],
        entrypoint="flow.py:pipeline",
        work_pool_name="here",
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(small.root)}}],
    )
    run = small.server.post(f"deployments/{made['id']}/create_flow_run")["id"]
    with small.server.worker("here", small.root, PYTHONPATH=str(PROJECT)):
        until((small.root / "child").exists, 90)
        small.server.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        until(lambda: small.last_run()["state"]["type"] == "CANCELLED", 90)
        until(small.nothing_runs)


def test_what_keeps_a_stage_from_running_fails_the_run(small: Small) -> None:
    small.do(first={"break": True})
    with pytest.raises(StageFailed, match="the stage second could not be run"):
        pipeline()
    assert small.last_run()["state"]["type"] == "FAILED" and small.tasks() == ["Completed", "Failed", "Skipped"]
    (small.root / "dvc.yaml").write_text(GRAPH.replace("timeout: 60s", "timeout: soon"))
    with pytest.raises(AttuneError, match=r"dvc\.yaml: meta of first: 'soon' is no duration; write 30s, 15m or 2h"):
        pipeline()


def test_what_a_stage_says_is_kept_without_codes_and_a_message_for_people_is_not_tried_again(small: Small) -> None:
    small.do(first={"say": "\x1b[31mred\x1b[0m\n1 %\r2 %\r3 %\nfirst stopped: rows.csv has no rows", "fail": 9})
    with pytest.raises(StageFailed, match=r"rows\.csv has no rows"):
        pipeline()
    assert small.ran() == ["first"]
    lines = (small.root / "logs" / "first.log").read_text().splitlines()
    assert "red" in lines and "3 %" in lines


def test_ctrl_c_at_a_terminal_ends_a_run_with_a_server_of_its_own(small: Small) -> None:
    small.do(second={"sleep": 1000})
    (small.root / "prefect").mkdir()
    copy_database(small.server.home / "prefect.db", small.root / "prefect" / "prefect.db")
    flow = small.start(PREFECT_API_URL="", PREFECT_HOME=str(small.root / "prefect"))
    until((small.root / "child").exists, 150)
    os.killpg(flow.pid, signal.SIGINT)  # as a terminal does: all of its group
    output, _ = flow.communicate(timeout=30)
    assert flow.returncode == 130, output
    assert "second: cancelled  third: skipped" in output and "Traceback" not in output
    assert "interrupted; what was finished is kept" in output
    until(small.nothing_runs)


def test_a_run_waits_for_another_one_in_the_same_checkout(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor() as pool, in_turn(LOCK):
        run = pool.submit(copy_context().run, pipeline)
        until(lambda: "another run is at work in this checkout: waiting" in caplog.text)
        assert small.ran() == []
    assert run.result() == states("success", "success", "success")


def test_parameters_reach_the_run_and_wrong_ones_stop_it_before_it_begins(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["first", "--set", "seed=14"]) == 0
    assert small.ran() == ["first"]
    assert "seed: 14" in (small.root / "params.yaml").read_text()
    capsys.readouterr()
    assert main(["fourth"]) == 1 and "no stage of dvc.yaml" in capsys.readouterr().err
    with temporary_settings({PREFECT_API_URL: "http://me:hunter22@127.0.0.1:9/api"}):
        assert main([]) == 1
    message = capsys.readouterr().err
    assert "no Prefect server answers at http://" in message and "hunter22" not in message


def test_durations_are_read() -> None:
    assert [seconds_of(text) for text in ("30s", "15m", "2h", 90, "1.5h")] == [30, 900, 7200, 90, 5400]
