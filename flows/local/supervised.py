"""The processes of a project's services: how supervisor is started, what is running, how all of it is ended.

What is running is read off the table of processes: all that the services start, down to the stages of a flow run, has
ATTUNE_SERVICES in its environment. So no file can be stale, and nothing is lost sight of when supervisor is killed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import psutil

from stages.common.errors import AttuneError
from stages.common.redact import redacted
from stages.common.shown import visible

CONF = Path(__file__).with_name("services.conf")
MARK, SOCKET = "ATTUNE_SERVICES", "ATTUNE_SOCKET"
PORT_VARIABLES = {"prefect": "PREFECT_PORT", "mlflow": "MLFLOW_PORT"}
LISTEN_SECONDS, FLOW_RUN_SECONDS, STOP_SECONDS, KILL_SECONDS = 30, 60, 90, 10
LONGEST_SOCKET = 90  # bytes; a system takes 104 or 108, and supervisor adds its process id for a moment
LAST_LINES = 15
ELSEWHERE = ("PREFECT_", "MLFLOW_", "MAKE")  # settings that are meant for other servers, or for the make that called


@dataclass(frozen=True)
class Services:
    """The services of a project, as they run.

    Args:
        folder: where their data are.
        supervisor: the process that runs them.
        ports: of the servers, by name.
        socket: where supervisor listens.
    """

    folder: Path
    supervisor: psutil.Process
    ports: dict[str, int]
    socket: Path

    @property
    def api_url(self) -> str:
        """What PREFECT_API_URL is while they run."""
        return f"http://127.0.0.1:{self.ports['prefect']}/api"

    @property
    def mlflow_url(self) -> str:
        """What MLFLOW_TRACKING_URI is while they run."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    def states(self) -> dict[str, dict[str, Any]]:
        """Return what supervisor says of each program, by name: statename, pid, …

        Raises:
            OSError: if it does not listen (yet).
        """
        return {told["name"]: told for told in self._control().getAllProcessInfo()}

    def start(self, name: str) -> None:
        """Start a program that is not running."""
        self._control().startProcess(name, False)

    def log(self, name: str) -> Path:
        """Return where a program's output is kept."""
        return self.folder / "logs" / f"{name}.log"

    def _control(self) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        return ServerProxy("http://127.0.0.1", SupervisorTransport(None, None, f"unix://{self.socket}")).supervisor


def processes(folder: Path) -> list[psutil.Process]:
    """Return all that the services of a project have started and that is still there, but for this process itself."""
    asked = ["environ", "cmdline", "ppid"]  # None where it is another user's, or gone by now
    return [
        process
        for process in psutil.process_iter(asked)
        if (process.info["environ"] or {}).get(MARK) == str(folder) and process.pid != os.getpid()
    ]


def find(folder: Path) -> Services | None:
    """Return the services of a project if their supervisor is running."""
    for process in processes(folder):
        if identity(folder) in (process.info["cmdline"] or []):
            told = process.info["environ"]
            ports = {name: int(told[variable]) for name, variable in PORT_VARIABLES.items()}
            return Services(folder, process, ports, Path(told[SOCKET]))
    return None


def identity(folder: Path) -> str:
    """Return the word by which the command line of a project's supervisor is known."""
    return f"attune-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def launch(folder: Path, ports: dict[str, int]) -> Services:
    """Start supervisor in the project that holds `folder`, and return once it listens.

    Raises:
        AttuneError: with what it said, if it does not come up.
    """
    (folder / "logs").mkdir(exist_ok=True)
    socket = folder / "supervisor.sock"
    if len(os.fsencode(socket)) > LONGEST_SOCKET:
        socket = Path(tempfile.mkdtemp(prefix="attune-")) / "supervisor.sock"
    with (folder / "logs" / "start.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-s", "-c", str(CONF), "-i", identity(folder)],
            cwd=folder.parent,
            env=_environment(folder, ports, socket),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it outlives this terminal
        )
    services = Services(folder, psutil.Process(process.pid), ports, socket)
    end = time.monotonic() + LISTEN_SECONDS
    while True:
        try:
            services.states()
            return services
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise failed(services, "start", "supervisor could not be started") from None
            time.sleep(0.1)


def end_all(folder: Path) -> int:
    """End all processes of a project's services, and wait until they have ended; return how many there were.

    Raises:
        AttuneError: if one does not even end when it is killed.
    """
    found = processes(folder)
    now = find(folder)
    if now is not None:
        # Prefect's worker kills its flow runs on the spot. Asked first, they end their stages and tell the server.
        _end(_flow_runs(found), psutil.Process.terminate, FLOW_RUN_SECONDS)
        _end([now.supervisor], psutil.Process.terminate, STOP_SECONDS)  # the worker first, then the servers
        if now.socket.parent != folder:
            now.socket.unlink(missing_ok=True)
            now.socket.parent.rmdir()
    for how in (psutil.Process.terminate, psutil.Process.kill):
        _end(processes(folder), how, KILL_SECONDS)
    if left := processes(folder):
        pids = ", ".join(str(process.pid) for process in left)
        raise AttuneError(f"these processes of the services do not end: {pids}", "see what they wait for: ps -fp PID")
    return len(found)


def _flow_runs(found: list[psutil.Process]) -> list[psutil.Process]:
    workers = {process.pid for process in found if "worker" in (process.info["cmdline"] or [])}
    return [process for process in found if process.info["ppid"] in workers]


def _end(found: list[psutil.Process], how: Callable[[psutil.Process], None], seconds: float) -> None:
    for process in found:
        with suppress(psutil.NoSuchProcess):
            how(process)
    psutil.wait_procs(found, seconds)


def failed(services: Services, log: str, what: str) -> AttuneError:
    """Return the error that says what is wrong, with the last lines of a log."""
    path = services.log(log)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    tail = redacted("\n".join(lines[-LAST_LINES:])).splitlines()
    told = "".join(f"\n  {visible(line)}" for line in tail)
    return AttuneError(f"{what}; its last lines:{told}", f"the whole log: {path}")


def _environment(folder: Path, ports: dict[str, int], socket: Path) -> dict[str, str]:
    """Return the environment of all services: this one, without what is meant for other servers."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ELSEWHERE)}
    # A flow run has its own copy of the code, which a path to this one would hide.
    paths = [path for path in kept.pop("PYTHONPATH", "").split(os.pathsep) if path]
    if others := [path for path in paths if Path(path).resolve() != folder.parent]:
        kept["PYTHONPATH"] = os.pathsep.join(others)
    for key in ("NO_PROXY", "no_proxy"):
        kept[key] = ",".join(filter(None, [kept.get(key), "127.0.0.1", "localhost"]))
    return kept | {
        MARK: str(folder),
        SOCKET: str(socket),
        "ATTUNE_HOME": str(folder.parent),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{ports['prefect']}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        **{PORT_VARIABLES[name]: str(port) for name, port in ports.items()},
    }
