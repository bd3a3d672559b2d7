"""`make services`: real servers, a real worker and real supervisors, in two projects side by side."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from flows.local.supervised import MARK, find, processes
from tests.conftest import PROJECT

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
    client.create_flow_run_from_deployment(made)
"""
RECORD = """
import sys
from pathlib import Path
from stages.common.tracking.store import connect, experiment_id

client = connect()
Path("note.txt").write_text(sys.argv[1])
experiment = experiment_id(client, sys.argv[2])
run = client.create_run(experiment, run_name=sys.argv[1])
client.log_artifact(run.info.run_id, "note.txt")
for run in client.search_runs([experiment]):
    print("noted", Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text(), run.info.artifact_uri)
"""


@dataclass(frozen=True)
class Place:
    """A folder with services of its own."""

    root: Path
    prefect: int
    mlflow: int

    @property
    def folder(self) -> Path:
        return self.root / ".services"

    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        return inherited | {"PATH": path, "PYTHONPATH": str(PROJECT)}

    def begin(self, *command: str, **more: str) -> "subprocess.Popen[str]":
        ports = {"PREFECT_PORT": str(self.prefect), "MLFLOW_PORT": str(self.mlflow)}
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.root,
            env=self.environment() | ports | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, **more: str) -> tuple[int, str]:
        started = self.begin(*command, **more)
        said, _ = started.communicate(timeout=200)
        return started.returncode, said

    def services(self, what: str, **more: str) -> tuple[int, str]:
        return self.run("-m", "flows.services", what, **more)

    def made(self) -> str:
        """Return what the project's Makefile makes of PREFECT_API_URL and MLFLOW_TRACKING_URI."""
        show = "show: ; @echo $$PREFECT_API_URL $$MLFLOW_TRACKING_URI"
        command = ["make", "--no-print-directory", "-f", str(PROJECT / "Makefile"), f"--eval={show}", "show"]
        return subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=True
        ).stdout.strip()

    def pids(self) -> dict[str, int]:
        services = find(self.folder)
        assert services is not None
        return {name: told["pid"] for name, told in services.states().items()}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Running services, in a folder whose name is too long for a socket and awkward for a shell."""
    root = tmp_path_factory.mktemp("one") / "a folder, 100% 'ours' $HOME" / ("long" * 20)
    root.mkdir(parents=True)
    place = Place(root, free_port(), free_port())
    try:
        status, said = place.services("start")
        assert status == 0, said
        yield place
    finally:
        place.services("stop")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("two"), free_port(), free_port())
    yield place
    place.services("stop")


def test_all_three_answer_on_loopback_alone_and_a_second_start_changes_nothing(one: Place) -> None:
    assert urlopen(f"http://127.0.0.1:{one.prefect}/api/health").status == 200
    assert urlopen(f"http://127.0.0.1:{one.mlflow}/health").status == 200
    assert one.services("status")[0] == 0
    listening = {
        connection.laddr.ip
        for process in processes(one.folder)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    before = one.pids()
    status, said = one.services("start")
    assert status == 0
    assert "the services run already" in said
    assert f"http://127.0.0.1:{one.prefect}" in said
    assert one.pids() == before
    status, said = one.services("start", PREFECT_PORT=str(free_port()))
    assert status == 1
    assert f"PREFECT_PORT={one.prefect}" in said


def test_what_they_keep_and_where_they_are_told_what_to_do_is_for_their_user_alone(one: Place) -> None:
    services = find(one.folder)
    assert services is not None
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(services.socket.stat().st_mode) == 0o700
    asked = services.supervisor.environ()
    assert asked[MARK] == str(one.folder)
    assert asked["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{one.mlflow}"


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
        addresses.write_text(told.replace(str(find(one.folder).supervisor.pid), str(os.getpid())))
        assert one.made() == ""
    finally:
        addresses.write_text(told)


@pytest.mark.parametrize("first", ["with the server", "without"])
def test_runs_made_with_and_without_the_server_have_their_artifacts_beside_each_other(one: Place, first: str) -> None:
    ways = {"with the server": {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{one.mlflow}"}, "without": {}}
    for way in sorted(ways, key=lambda way: way != first):
        status, said = one.run("-c", RECORD, way, f"first {first}", **ways[way])
        assert status == 0, said
        noted = [line for line in said.splitlines() if line.startswith("noted ")]
        assert all("/mlruns/" in line for line in noted)
    assert sorted(line.split(" /")[0].split(" file:")[0] for line in noted) == [
        "noted with the server",
        "noted without",
    ]


def test_a_port_that_is_taken_is_told_and_nothing_is_started(one: Place, two: Place) -> None:
    status, said = two.services("start", MLFLOW_PORT=str(one.mlflow))
    assert status == 1
    assert f"the port {one.mlflow}, which mlflow is to listen on" in said
    assert "make services MLFLOW_PORT=" in said
    status, said = two.services("start", PREFECT_PORT="many")
    assert (status, "PREFECT_PORT=many is no port" in said) == (1, True)
    assert processes(two.folder) == []


def test_a_program_that_cannot_start_is_told_with_its_last_lines_and_nothing_is_left(two: Place) -> None:
    broken = two.root / "mlflow.db"
    broken.write_text("this is no database, nor will it ever be one\n" * 100)
    status, said = two.services("start")
    broken.unlink()
    assert status == 1
    assert "mlflow ended at once; its last lines:" in said
    assert "file is not a database" in said
    assert processes(two.folder) == []
    assert is_free(two.prefect)


def test_a_server_that_is_killed_is_back_soon(one: Place) -> None:
    one.root.joinpath("slow.py").write_text(SLOW_FLOW)
    status, said = one.run("-c", DEPLOY_SLOW, PREFECT_API_URL=f"http://127.0.0.1:{one.prefect}/api")
    assert status == 0, said
    killed = one.pids()
    os.kill(killed["prefect"], signal.SIGKILL)
    wait_for(lambda: one.services("status")[0] == 0)
    now = one.pids()
    assert now["prefect"] != killed["prefect"]
    assert now["worker"] == killed["worker"]


def test_of_two_starts_at_once_one_starts_and_a_killed_supervisor_leaves_no_second_server(
    one: Place, two: Place
) -> None:
    both = [two.begin("-m", "flows.services", "start") for _ in range(2)]
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("the services run already" in text for text in said) == 1
    before = {process.pid for process in processes(two.folder)}
    assert before.isdisjoint(process.pid for process in processes(one.folder))

    supervisor = find(two.folder).supervisor
    supervisor.kill()
    supervisor.wait(10)
    assert two.made() == "", "nobody is sent to servers that nobody looks after"
    assert two.services("status")[0] == 1
    status, text = two.services("start")
    assert status == 0, text
    assert before.isdisjoint(process.pid for process in processes(two.folder))
    assert all(not psutil.pid_exists(pid) for pid in before)

    status, text = two.services("stop")
    assert (status, "have ended" in text) == (0, True)
    assert processes(two.folder) == []
    assert is_free(two.prefect) and is_free(two.mlflow)
    assert two.services("stop") == (0, "no services are running here\n")
    assert one.services("status")[0] == 0, "the other project's go on"


def test_stop_ends_a_flow_run_with_its_stages_and_the_server_hears_of_it(one: Place) -> None:
    def stage() -> list[psutil.Process]:
        return [process for process in processes(one.folder) if process.info["cmdline"] == ["sleep", "1009"]]

    wait_for(lambda: bool(stage()))
    status, said = one.services("stop")
    assert status == 0, said
    assert processes(one.folder) == []
    assert is_free(one.prefect) and is_free(one.mlflow)
    assert one.made() == ""
    assert not (one.folder / "env.mk").exists()
    with sqlite3.connect(one.folder / "prefect" / "prefect.db") as store:
        assert store.execute("select state_type from flow_run").fetchall() == [("CRASHED",)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.bind(("127.0.0.1", port)) is None


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.3)
