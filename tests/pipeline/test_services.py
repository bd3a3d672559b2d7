"""`make services`: real servers, a real worker and real supervisors, in two projects side by side."""

import os
import signal
import socket
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

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
DEPLOY_SLOW = """
from pathlib import Path
from prefect.client.orchestration import get_client

with get_client(sync_client=True) as client:
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}
    slow = client.create_flow_from_name("slow")
    made = client.create_deployment(
        slow, "slow", entrypoint="slow.py:slow", work_pool_name="attune", pull_steps=[step]
    )
    for _ in range(2):
        client.create_flow_run_from_deployment(made)
"""
RECORD = """
import sys
from pathlib import Path
from stages.tracking.store import connect, experiment_id

client = connect()
Path("note.txt").write_text(sys.argv[1])
experiment = experiment_id(client, "both ways")
run = client.create_run(experiment, run_name=sys.argv[1])
client.log_artifact(run.info.run_id, "note.txt")
for run in client.search_runs([experiment]):
    print("noted", Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text())
"""


@dataclass(frozen=True)
class Place(Project):
    """A folder with services of its own."""

    prefect: int = field(default_factory=free_port)
    mlflow: int = field(default_factory=free_port)

    @property
    def folder(self) -> Path:
        return self.root / ".services"

    def ran(self, *command: str, **more: str) -> tuple[int, str]:
        ports = {"PREFECT_PORT": str(self.prefect), "MLFLOW_PORT": str(self.mlflow)}
        done = self.python(*command, **{**ports, **more})
        return done.returncode, done.stdout + done.stderr

    def services(self, what: str, **more: str) -> tuple[int, str]:
        return self.ran("-m", "flows.services", what, **more)

    def made(self) -> str:
        """Return what the project's Makefile makes of PREFECT_API_URL and MLFLOW_TRACKING_URI."""
        show = "show: ; @echo $$PREFECT_API_URL $$MLFLOW_TRACKING_URI"
        command = ["make", "--no-print-directory", "-f", str(PROJECT / "Makefile"), f"--eval={show}", "show"]
        return self.run(*command).stdout.strip()

    def supervisor(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "supervisord.pid").read_text()))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Running services, in a folder whose name is too long for a socket and awkward for a shell."""
    root = tmp_path_factory.mktemp("one") / "a folder, 100% 'ours' $HOME" / ("long" * 20)
    root.mkdir(parents=True)
    place = Place(root, seconds=200)
    try:
        status, said = place.services("start", PREFECT_API_URL="http://elsewhere.example/api")
        assert status == 0, said
        yield place
    finally:
        place.services("stop")


@pytest.fixture
def two(tmp_path: Path) -> Place:
    return Place(tmp_path, seconds=200)


def test_all_three_answer_on_loopback_alone_and_a_second_start_changes_nothing(one: Place) -> None:
    assert urlopen(f"http://127.0.0.1:{one.prefect}/api/health").status == 200
    assert urlopen(f"http://127.0.0.1:{one.mlflow}/health").status == 200
    assert one.services("status")[0] == 0
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
    children = one.supervisor().children(recursive=True)
    addresses = {
        connection.laddr.ip
        for process in children
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    status, said = one.services("start", PREFECT_PORT=str(free_port()))
    assert status == 0 and "the services run already" in said and f"http://127.0.0.1:{one.prefect}" in said
    assert set(children) <= set(one.supervisor().children(recursive=True))


def test_pages_of_strangers_may_not_ask_the_servers(one: Place) -> None:
    asked = Request(f"http://127.0.0.1:{one.prefect}/api/health", headers={"Origin": "http://elsewhere.example"})
    assert urlopen(asked).headers["Access-Control-Allow-Origin"] is None
    with pytest.raises(OSError, match="403"):
        urlopen(Request(f"http://127.0.0.1:{one.mlflow}/", headers={"Host": "elsewhere.example"}))


def test_make_knows_the_addresses_for_as_long_as_that_supervisor_runs(one: Place) -> None:
    assert one.made() == f"http://127.0.0.1:{one.prefect}/api http://127.0.0.1:{one.mlflow}"
    addresses = one.folder / "env.mk"
    told = addresses.read_text()
    try:  # after a reboot, say, when the number is another program's
        addresses.write_text(told.replace(f"-p {one.supervisor().pid} ", f"-p {os.getpid()} "))
        assert one.made() == ""
    finally:
        addresses.write_text(told)


def test_runs_made_with_and_without_the_server_have_their_artifacts_beside_each_other(one: Place) -> None:
    one.ran("-c", RECORD, "with the server", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{one.mlflow}")
    status, said = one.ran("-c", RECORD, "without")
    assert status == 0, said
    assert {line for line in said.splitlines() if line.startswith("noted ")} == {
        "noted with the server",
        "noted without",
    }


def test_a_port_that_is_taken_is_told_and_nothing_is_started(one: Place, two: Place) -> None:
    status, said = two.services("start", MLFLOW_PORT=str(one.mlflow))
    assert status == 1
    assert f"the port MLFLOW_PORT={one.mlflow} is taken" in said and "make services MLFLOW_PORT=" in said
    assert two.services("status")[0] == 1


def test_a_program_that_cannot_start_is_told_with_its_last_lines_and_nothing_is_left(two: Place) -> None:
    (two.root / "mlflow.db").write_text("this is no database, nor will it ever be one\n" * 100)
    status, said = two.services("start")
    assert status == 1
    assert "mlflow does not start; its last lines:" in said and "file is not a database" in said
    assert two.services("stop") == (0, "no services are running here\n")
    assert is_free(two.prefect)


def test_what_dies_is_restarted_and_stop_ends_flow_runs_and_the_server_hears_of_it(one: Place) -> None:
    one.root.joinpath("slow.py").write_text(SLOW_FLOW)
    status, said = one.ran("-c", DEPLOY_SLOW, PREFECT_API_URL=f"http://127.0.0.1:{one.prefect}/api")
    assert status == 0, said
    [server] = [
        process for process in one.supervisor().children() if "prefect server start" in " ".join(process.cmdline())
    ]
    os.kill(server.pid, signal.SIGKILL)

    def stages() -> list[psutil.Process]:
        return [process for process in one.supervisor().children(recursive=True) if process.name() == "sleep"]

    until(stages, 90)
    supervisor, [stage] = one.supervisor(), stages()  # one run at a time
    status, said = one.services("stop")
    assert status == 0, said
    assert not supervisor.is_running() and not stage.is_running()
    assert is_free(one.prefect) and is_free(one.mlflow)
    assert one.made() == ""
    with sqlite3.connect(one.folder / "prefect" / "prefect.db") as store:
        states = [state for (state,) in store.execute("select state_type from flow_run order by start_time is null")]
    assert states[0] == "CRASHED" and "RUNNING" not in states


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.bind(("127.0.0.1", port)) is None
