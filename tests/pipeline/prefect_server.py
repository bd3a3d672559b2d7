"""A real Prefect server with data of its own, and real workers for it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.waiting import free_port, server

PREFECT = (sys.executable, "-m", "prefect")
QUICK = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5", "PREFECT_WORKER_QUERY_SECONDS": "2"}


@dataclass(frozen=True)
class PrefectServer:
    """A running server on a port of its own."""

    home: Path
    port: int

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

    def run(self, *command: str, cwd: Path, check: bool = True, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a program that talks to this server."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment | more, capture_output=True, text=True, check=False, timeout=300
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def post(self, path: str, content: Any = None, **body: Any) -> Any:
        """Return the answer of its API; asked again, as Prefect's own client does, while the database is locked."""
        url, sent = f"{self.environment['PREFECT_API_URL']}/{path}", body if content is None else content
        end = time.monotonic() + 60
        while (answer := httpx.post(url, json=sent, timeout=20)).status_code == 503 and time.monotonic() < end:
            time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    @contextmanager
    def worker(self, pool: str, cwd: Path, **more: str) -> Iterator[None]:
        """Run a worker of a process work pool for as long as the block lasts; its log is `worker.log` in `home`."""
        command = [*PREFECT, "worker", "start", "--pool", pool, "--type", "process"]
        with server(command, "", self.home / "worker.log", cwd=cwd, env=self.environment | QUICK | more):
            yield


@contextmanager
def prefect_server(home: Path, new: Path) -> Iterator[PrefectServer]:
    """Run a server for as long as the block lasts; `new` is or becomes the database of one without data.

    Making a database takes half of the seconds that a server needs to start.
    """
    if new.exists():
        shutil.copyfile(new, home / "prefect.db")
    running = PrefectServer(home, free_port())
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(running.port)]
    url = f"{running.environment['PREFECT_API_URL']}/health"
    with server(command, url, home / "server.log", cwd=home, env=running.environment | QUICK):
        if not new.exists():
            copy_database(home / "prefect.db", new)
        yield running


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that is in use."""
    part = target.with_suffix(f".{os.getpid()}")
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(part)) as new:
        old.backup(new)
    part.rename(target)
