"""`make services`: real servers, a real worker and real supervisors, in two projects side by side."""

import os
import socket
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient

from tests.pipeline.prefect_server import copy_database
from tests.projects import PROJECT, Project
from tests.waiting import free_port, until

SLOW_FLOW = """
import subprocess
from prefect import flow

@flow
def slow():
    child = subprocess.Popen(["sleep", "1009"], start_new_session=True)  # as stages run
    try:
        child.wait()
    finally:
        child.terminate()
"""
RECORD = """
import sys
from pathlib import Path
from stages.tracking.store import connect, experiment_id

client = connect()
experiment = experiment_id(client, "both ways")
client.log_text(client.create_run(experiment).info.run_id, sys.argv[1], "note.txt")
for run in client.search_runs([experiment]):
    print("noted", Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text())
"""


@dataclass(frozen=True)
class Home(Project):
    """A folder with ports for services of its own."""

    prefect: int = field(default_factory=free_port)
    mlflow: int = field(default_factory=free_port)

    def services(self, what: str, **more: str) -> tuple[int, str]:
        """Run `python -m flows.services`; return its exit status and output."""
        ports = {"PREFECT_PORT": str(self.prefect), "MLFLOW_PORT": str(self.mlflow)}
        done = self.python("-m", "flows.services", what, **ports | more)
        return done.returncode, done.stdout + done.stderr

    def addresses(self) -> str:
        """Return PREFECT_API_URL and MLFLOW_TRACKING_URI as the project's Makefile sets them."""
        show = "show: ; @echo $$PREFECT_API_URL $$MLFLOW_TRACKING_URI"
        command = ["make", "--no-print-directory", "-f", str(PROJECT / "Makefile"), f"--eval={show}", "show"]
        return self.run(*command).stdout.strip()

    def supervisor(self) -> psutil.Process:
        return psutil.Process(int((self.root / ".services" / "supervisord.pid").read_text()))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Running services, in a folder whose name is too long for a socket and awkward for a shell."""
    root = tmp_path_factory.mktemp("home") / "a folder, 100 'ours' $HOME" / ("long" * 20)
    root.mkdir(parents=True)
    project = Home(root, seconds=200)
    try:
        status, output = project.services("start", PREFECT_API_URL="http://elsewhere.example/api")
        assert status == 0, output
        yield project
    finally:
        project.services("stop")


@pytest.fixture
def other(tmp_path: Path) -> Home:
    return Home(tmp_path, seconds=200)


def test_all_three_answer_on_loopback_alone_and_a_second_start_changes_nothing(home: Home) -> None:
    request = Request(f"http://127.0.0.1:{home.prefect}/api/health", headers={"Origin": "http://elsewhere.example"})
    assert urlopen(request).headers["Access-Control-Allow-Origin"] is None, "pages of strangers may not ask it"
    assert urlopen(f"http://127.0.0.1:{home.mlflow}/health").status == 200
    with pytest.raises(OSError, match="403"):
        urlopen(Request(f"http://127.0.0.1:{home.mlflow}/", headers={"Host": "elsewhere.example"}))
    assert home.services("status")[0] == 0
    assert stat.S_IMODE((home.root / ".services").stat().st_mode) == 0o700
    children = home.supervisor().children(recursive=True)
    everyone = (home.supervisor(), *children)
    connections = [connection for process in everyone for connection in process.net_connections("tcp")]
    assert {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    status, output = home.services("start", PREFECT_PORT=str(free_port()))
    assert status == 0 and "the services run already" in output and f"http://127.0.0.1:{home.prefect}" in output
    assert set(children) <= set(home.supervisor().children(recursive=True))


def test_make_knows_the_addresses_for_as_long_as_that_supervisor_runs(home: Home) -> None:
    assert home.addresses() == f"http://127.0.0.1:{home.prefect}/api http://127.0.0.1:{home.mlflow}"
    file = home.root / ".services" / "env.mk"
    text = file.read_text()
    try:  # after a reboot, say, when the number is another program's
        file.write_text(text.replace(f"-p {home.supervisor().pid} ", f"-p {os.getpid()} "))
        assert home.addresses() == ""
    finally:
        file.write_text(text)


def test_runs_made_with_and_without_the_server_have_their_artifacts_beside_each_other(home: Home) -> None:
    home.python("-c", RECORD, "with the server", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{home.mlflow}")
    output = home.python("-c", RECORD, "without").stdout
    assert {line for line in output.splitlines() if line.startswith("noted")} == {
        "noted with the server",
        "noted without",
    }


def test_a_port_that_is_taken_is_told_and_nothing_is_started(home: Home, other: Home) -> None:
    status, output = other.services("start", MLFLOW_PORT=str(home.mlflow))
    assert status == 1
    assert f"the port MLFLOW_PORT={home.mlflow} is taken" in output and "make services MLFLOW_PORT=" in output
    assert other.services("status")[0] == 1


def test_a_program_that_cannot_start_is_told_with_its_last_lines_and_nothing_is_left(home: Home, other: Home) -> None:
    (other.root / ".services/prefect").mkdir(parents=True)
    for database in (".services/prefect/prefect.db", "mlflow.db"):  # which take seconds to make
        copy_database(home.root / database, other.root / database)
    with sqlite3.connect(other.root / "mlflow.db") as store:
        store.execute("UPDATE alembic_version SET version_num = 'of a later MLflow'")
    status, output = other.services("start")
    assert status == 1
    assert "mlflow does not start; its last lines:" in output and "of a later MLflow" in output
    assert other.services("stop") == (0, "no services are running here\n")
    assert is_free(other.prefect)


def test_what_dies_is_restarted_and_stop_ends_flow_runs_and_the_server_hears_of_it(home: Home) -> None:
    home.root.joinpath("slow.py").write_text(SLOW_FLOW)
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(home.root)}}
    with SyncPrefectClient(api=f"http://127.0.0.1:{home.prefect}/api") as client:
        flow, more = client.create_flow_from_name("slow"), {"work_pool_name": "attune", "pull_steps": [step]}
        deployment = client.create_deployment(flow, "slow", entrypoint="slow.py:slow", **more)
        for _ in range(2):
            client.create_flow_run_from_deployment(deployment)
    supervisor = home.supervisor()
    (server,) = [process for process in supervisor.children() if "prefect server start" in " ".join(process.cmdline())]
    server.kill()

    def stages() -> list[psutil.Process]:
        return [process for process in supervisor.children(recursive=True) if process.name() == "sleep"]

    until(stages, 90)
    (stage,) = stages()  # one run at a time
    status, output = home.services("stop")
    assert status == 0, output
    assert not supervisor.is_running() and not stage.is_running()
    assert is_free(home.prefect) and is_free(home.mlflow)
    assert home.addresses() == ""
    with sqlite3.connect(home.root / ".services" / "prefect" / "prefect.db") as store:
        states = [state for (state,) in store.execute("select state_type from flow_run order by start_time is null")]
    assert states[0] == "CRASHED" and "RUNNING" not in states


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.bind(("127.0.0.1", port)) is None
