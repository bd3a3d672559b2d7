"""The pipeline as a Prefect flow on a real server: the same result as DVC's, and what happens when things go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from flows.execution.stage_process import seconds_of
from tests.pipeline.prefect_server import PrefectServer
from tests.projects import PROJECT, RECIPE, Project
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
    left = subprocess.Popen(["setsid", "sleep", "3000"])
    Path("child").write_text(str(left.pid))
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


@pytest.fixture
def small(tmp_path: Path, server: PrefectServer) -> "Small":
    files = {"work.py": WORK, "dvc.yaml": GRAPH, "params.yaml": RECIPE}
    return Small(tmp_path / "small", server=server).begin(files)


@dataclass(frozen=True)
class Small(Project):
    """A project of three stages that take no time, run by the real flow."""

    server: PrefectServer = field(kw_only=True)
    settings = MappingProxyType({"PYTHONPATH": str(PROJECT)})

    def do(self, **what: dict[str, Any]) -> None:
        self.file("do.json", what)

    def flow(self, *arguments: str, check: bool = True, **more: str) -> "subprocess.CompletedProcess[str]":
        return self.server.run(*FLOW, *arguments, cwd=self.root, check=check, **self.settings, **more)

    def start(self, *command: str, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*HEEDING, *command],
            cwd=self.root,
            env={name: value for name, value in {**self.server.environment, **self.settings, **more}.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ran(self) -> list[str]:
        path = self.root / "ran.txt"
        return path.read_text().split() if path.exists() else []

    def child(self) -> int:
        return int((self.root / "child").read_text())

    def last_run(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1)
        return found[0]

    def tasks(self) -> dict[str, str]:
        """The state of each task of the last run."""
        only = {"flow_runs": {"id": {"any_": [self.last_run()["id"]]}}}
        return {task["name"]: task["state"]["name"] for task in self.ask("task_runs/filter", **only)}

    def ask(self, path: str, **body: Any) -> Any:
        url = f"{self.server.environment['PREFECT_API_URL']}/{path}"
        return httpx.post(url, json=body, timeout=20).raise_for_status().json()


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def states_in(done: "subprocess.CompletedProcess[str]") -> str:
    return next(line for line in (done.stdout + done.stderr).splitlines() if "third: " in line).partition(" - ")[2]


def test_the_flow_leaves_the_bytes_in_dvc_lock_that_dvc_repro_leaves(small: Small) -> None:
    small.flow()
    by_flow = (small.root / "dvc.lock").read_bytes()
    assert "third: cached" in states_in(small.flow())
    assert "didn't change, skipping" in small.server.run("dvc", "repro", cwd=small.root).stdout
    assert len(small.ran()) == 3 and (small.root / "dvc.lock").read_bytes() == by_flow
    (small.root / "dvc.lock").unlink()
    small.server.run("dvc", "repro", cwd=small.root)
    assert (small.root / "dvc.lock").read_bytes() == by_flow and len(small.ran()) == 6


def test_a_stage_that_fails_twice_succeeds_on_its_third_try(small: Small) -> None:
    small.do(first={"fail": 2})
    done = small.flow()
    assert small.ran() == ["first", "first", "first", "second", "third"]
    assert "first: success  second: success  third: success" in states_in(done)
    assert small.tasks() == {"first": "Completed", "second": "Completed", "third": "Completed"}
    assert "first says hello" in (small.root / "logs" / "first.log").read_text()


def test_a_stage_that_fails_for_good_is_named_with_its_last_lines_and_the_rest_is_skipped(small: Small) -> None:
    small.flow()
    before = (small.root / "dvc.lock").read_bytes()
    (small.root / "ran.txt").unlink()
    small.do(second={"fail": 9})
    done = small.flow("--force", check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert "first: success  second: failed  third: skipped" in states_in(done)
    assert small.tasks() == {"first": "Completed", "second": "Failed", "third": "Skipped"}
    assert "the stage second failed; its last lines" in told and "second fails on try 1" in told
    assert "run again: what is done is not done again (the whole log: logs/second.log)" in told
    assert "Traceback" not in told
    assert small.last_run()["state"]["type"] == "FAILED" and "second" in small.last_run()["state"]["message"]
    assert (small.root / "dvc.lock").read_bytes() == before and (small.root / "third.out").exists()
    assert "first: cached  second: cached  third: cached" in states_in(small.flow())


def test_a_stage_past_its_time_is_ended_with_its_children(small: Small) -> None:
    graph = small.root / "dvc.yaml"
    graph.write_text(graph.read_text().replace("retries: 2, retry_delay: 1s, timeout: 60s", "timeout: 4s"))
    small.do(first={"sleep": 1000, "stubborn": True})
    started = time.monotonic()
    done = small.flow(check=False)
    assert done.returncode == 1 and "the stage first took longer than 4s" in done.stdout + done.stderr
    assert time.monotonic() - started < 60
    assert not is_alive(small.child()), "not even one that ignores SIGTERM"
    small.do()
    small.flow()
    assert small.ran().count("first") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_flow_that_is_ended_leaves_nothing_running_and_can_be_run_again(small: Small, number: signal.Signals) -> None:
    small.do(second={"sleep": 1000})
    flow = small.start(*FLOW)
    until((small.root / "child").exists)
    flow.send_signal(number)
    flow.wait(60)
    until(lambda: not is_alive(small.child()))
    assert flow.returncode != 0
    if number != signal.SIGKILL:
        told = flow.stdout.read() if flow.stdout else ""
        assert "second: cancelled  third: skipped" in told, told
    small.do()
    assert "first: cached  second: success  third: success" in states_in(small.flow())


def test_a_run_cancelled_on_the_server_ends_with_all_its_processes(small: Small) -> None:
    """By a worker, as in a deployment."""
    (small.root / "flow.py").write_text("from flows.pipeline import pipeline\n")
    small.do(first={"sleep": 1000})
    with small.server.worker("here", small.root, **small.settings):
        until(lambda: [pool for pool in small.ask("work_pools/filter") if pool["name"] == "here"])
        made = small.ask(
            "deployments/",
            name="small",
            flow_id=small.ask("flows/", name="attune")["id"],
            entrypoint="flow.py:pipeline",
            work_pool_name="here",
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(small.root)}}],
        )
        small.ask(f"deployments/{made['id']}/create_flow_run")
        until((small.root / "child").exists, 90)
        small.server.run("prefect", "flow-run", "cancel", small.last_run()["id"], cwd=small.root)
        until(lambda: small.last_run()["state"]["type"] == "CANCELLED", 90)
        until(lambda: not is_alive(small.child()))
    small.do()
    assert "first: success  second: success  third: success" in states_in(small.flow())


def test_what_keeps_a_stage_from_running_fails_the_run(small: Small) -> None:
    small.do(first={"break": True})
    done = small.flow(check=False)
    assert done.returncode == 1 and small.last_run()["state"]["type"] == "FAILED"
    assert "second: failed  third: skipped" in states_in(done), done.stdout + done.stderr
    (small.root / "dvc.yaml").write_text(GRAPH.replace("timeout: 60s", "timeout: soon"))
    small.do()
    wrong = small.flow(check=False)
    assert wrong.returncode == 1 and "dvc.yaml: meta of first: 'soon' is no duration" in wrong.stdout + wrong.stderr


def test_what_dvc_left_half_written_and_children_that_a_stage_left_do_not_hold_up_a_run(small: Small) -> None:
    (small.root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (small.root / ".dvc" / "tmp" / "rwlock").write_text("")
    small.do(first={"leave": True})
    started = time.monotonic()
    assert "first: success  second: success  third: success" in states_in(small.flow())
    assert time.monotonic() - started < 45
    assert not is_alive(small.child())


def test_what_a_stage_says_is_kept_without_codes_and_a_message_for_people_is_not_tried_again(small: Small) -> None:
    small.do(first={"say": "\x1b[31mred\x1b[0m\n1 %\r2 %\r3 %\nfirst stopped: rows.csv has no rows", "fail": 9})
    assert small.flow(check=False).returncode == 1
    assert small.ran() == ["first"]
    lines = (small.root / "logs" / "first.log").read_text().splitlines()
    assert "red" in lines and "3 %" in lines


def test_ctrl_c_at_a_terminal_ends_a_run_with_a_server_of_its_own(small: Small) -> None:
    small.do(second={"sleep": 1000})
    flow = small.start(*FLOW, PREFECT_API_URL="", PREFECT_HOME=str(small.root / "prefect"))
    until((small.root / "child").exists, 150)
    os.killpg(flow.pid, signal.SIGINT)  # as a terminal does: all of its group
    told, _ = flow.communicate(timeout=30)
    assert flow.returncode == 130, told
    assert "interrupted; what was finished is kept" in told and "Traceback" not in told
    until(lambda: not is_alive(small.child()))
    away = small.flow(check=False, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert away.returncode == 1 and "no Prefect server answers at http://127.0.0.1:9/api" in away.stderr


def test_no_secret_reaches_a_log_an_artifact_or_the_server(small: Small) -> None:
    url = "https://user:" + SECRET + "@example.org/rows.csv?sig=" + SECRET
    small.do(first={"say": f"reading {url} with {SECRET}"}, second={"say": f"token {SECRET}", "fail": 9})
    done = small.flow(check=False, MY_API_TOKEN=SECRET)
    assert done.returncode == 1
    time.sleep(3)  # logs are sent in batches
    for path in (small.root / "logs").iterdir():
        assert SECRET not in path.read_text()
    assert "reading https://" in (small.root / "logs" / "first.log").read_text()
    for what in ("logs/filter", "artifacts/filter", "flow_runs/filter", "task_runs/filter"):
        found = json.dumps(small.ask(what, sort="TIMESTAMP_DESC") if what == "logs/filter" else small.ask(what))
        assert SECRET not in found and len(found) > 100, what
    assert SECRET not in done.stdout + done.stderr


def test_the_second_of_two_runs_in_one_checkout_waits_and_finds_all_done(small: Small) -> None:
    small.do(first={"sleep": 5})
    flows = [small.start(*FLOW), small.start(*FLOW)]
    told = [flow.communicate(timeout=120)[0] for flow in flows]
    assert [flow.returncode for flow in flows] == [0, 0], told
    assert sum("another run is at work in this checkout: waiting" in text for text in told) == 1
    assert small.ran() == ["first", "second", "third"]


def test_parameters_reach_the_run(small: Small) -> None:
    done = small.flow("first", "--set", "seed=14")
    assert small.ran() == ["first"]
    assert "seed: 14" in (small.root / "params.yaml").read_text() and "-seed: 13" in done.stdout + done.stderr
    wrong = small.flow("--set", "finetune.learning_rat=1", check=False)
    assert wrong.returncode == 1 and "did you mean 'learning_rate'" in wrong.stdout + wrong.stderr
    assert "no stage of dvc.yaml" in (small.flow("fourth", check=False).stderr)


def test_durations_are_read_and_a_wrong_one_says_how_to_write_one() -> None:
    assert [seconds_of(text) for text in ("30s", "15m", "2h", 90, "1.5h")] == [30, 900, 7200, 90, 5400]
    with pytest.raises(ValueError, match="write 30s, 15m or 2h"):
        seconds_of("soon")
