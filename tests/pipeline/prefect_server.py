"""A real Prefect server with data of its own, and real workers for it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

START_SECONDS = 120


@dataclass
class PrefectServer:
    """A server on a port of its own; it can go away and come back with the same data."""

    home: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to talk to it."""
        own = {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        return inherited | own

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self.environment
                | {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5", "PREFECT_LOGGING_SERVER_LEVEL": "WARNING"}
                | self.settings,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urlopen(f"http://127.0.0.1:{self.port}/api/health", timeout=2).close()
                return
            except OSError:
                told = (self.home / "server.log").read_text(errors="replace")[-2000:]
                assert self._process.poll() is None and time.monotonic() < end, told
                time.sleep(0.3)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            end_group(self._process, number)
            self._process = None

    def run(self, *command: str, cwd: Path, check: bool = True, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a program that talks to this server."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment | more, capture_output=True, text=True, check=False, timeout=300
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    @contextmanager
    def worker(self, pool: str, cwd: Path, **more: str) -> "Iterator[subprocess.Popen[bytes]]":
        """Run a worker of a process work pool for as long as the block lasts; its log is `worker.log` in `home`."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        with (self.home / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environment | {"PREFECT_WORKER_QUERY_SECONDS": "2"} | more,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end_group(process, signal.SIGTERM)


def end_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """End a process and all it started."""
    for signum in (number, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            process.wait(20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@contextmanager
def prefect_server(home: Path, **settings: str) -> Iterator[PrefectServer]:
    """Run a server for as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = PrefectServer(home, port, settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
