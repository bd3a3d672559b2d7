"""`python -m flows.services start|stop|status`: Prefect's server, a worker and MLflow's server, for this machine alone.

supervisor runs them, as services.conf says; docs/services.md is the manual.
"""

import argparse
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import psutil

from flows.command import program
from flows.prefect_server import answers
from stages.common.errors import AttuneError
from stages.common.redact import redacted
from stages.tracking.store import has_database

FOLDER, CONF = Path(".services"), Path(__file__).with_name("services.conf")
PORTS = {"PREFECT_PORT": "4200", "MLFLOW_PORT": "5000"}
START_SECONDS, FLOW_RUN_SECONDS, STOP_SECONDS = 150, 60, 90
LONGEST_SOCKET = 90  # bytes: a system takes 104 or 108, and supervisor adds its process id
ELSEWHERE = ("PREFECT_", "MLFLOW_", "MAKE")  # settings that are meant for other servers, or for the make that called


@program("interrupted; `make services ARGS=status` shows how things stand")
def main(arguments: list[str] | None = None) -> int | None:
    """Start, stop or list the services of the project in this folder."""
    parser = argparse.ArgumentParser(prog="python -m flows.services", description="Prefect and MLflow on this machine.")
    parser.add_argument("what", choices=["start", "stop", "status"])
    return {"start": start, "stop": stop, "status": status}[parser.parse_args(arguments).what]()


def start() -> None:
    """Start what is not running, wait until all of it answers, and say where.

    Raises:
        AttuneError: if a port is taken, or a program does not start; then nothing is left running.
    """
    (FOLDER / "logs").mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o700)
    if ports := _ports():
        print("the services run already")
        _await_all(*ports)
    else:
        ports = [os.environ.get(variable) or usual for variable, usual in PORTS.items()]
        for variable, port in zip(PORTS, ports, strict=True):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", int(port))):
                    fix = f"end the program that has it, or take another: make services {variable}={int(port) + 10}"
                    raise AttuneError(f"the port {variable}={port} is taken", fix)
        _launch(*ports)
        try:
            _await_all(*ports)
        except BaseException:
            stop()
            raise
    print(f"  Prefect  http://127.0.0.1:{ports[0]}\n  MLflow   http://127.0.0.1:{ports[1]}")
    print(f"  worker   polls the work pool attune; logs are in {FOLDER / 'logs'}/")
    print("next: make deploy (the schedules of prefect.yaml), make flow (a run now), make stop (end them)")


def stop() -> None:
    """End all that the services started, and wait until it has ended.

    Prefect's worker kills its flow runs on the spot, and on the server they would go on for ever. Asked first, they end
    their stages and report it.
    """
    if not _ports():
        print("no services are running here")
        return
    worker = _control().getProcessInfo("worker")["pid"]
    runs = psutil.Process(worker).children() if worker else []
    for run in runs:
        run.terminate()
    psutil.wait_procs(runs, FLOW_RUN_SECONDS)
    supervisor = psutil.Process(_control().getPID())
    _control().shutdown()
    supervisor.wait(STOP_SECONDS)
    print("the services have ended")


def status() -> int:
    """Print how each program is; return 0 if all run, or else another status."""
    if not _ports():
        raise AttuneError("no services are running here", "make services")
    command = ["supervisor.supervisorctl", "-c", str(CONF), "-s", f"unix://{_socket()}", "status"]
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


def _launch(prefect: str, mlflow: str) -> None:
    has_database(Path("mlflow.db"))  # before MLflow's server has it: a broken one is named, a moved one mended
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ELSEWHERE)}
    environment.pop("PYTHONPATH", None)  # a flow run has its own copy of the code, which a path to this one would hide
    for key in ("NO_PROXY", "no_proxy"):
        environment[key] = ",".join(filter(None, [environment.get(key), "127.0.0.1", "localhost"]))
    home = Path.cwd()
    environment |= {"ATTUNE_HOME": str(home), "PREFECT_HOME": str(home / FOLDER / "prefect")}
    environment |= {"PREFECT_PORT": prefect, "MLFLOW_PORT": mlflow, "ATTUNE_SOCKET": str(_socket())}
    identity = f"attune-{prefect}-{mlflow}"
    command = [sys.executable, "-m", "supervisor.supervisord", "-s", "-c", str(CONF), "-i", identity]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AttuneError(f"supervisor could not be started: {redacted(done.stderr).strip()}")
    # What the Makefile includes. It counts for as long as that very supervisor runs, and not after a crash or a reboot.
    (FOLDER / "env.mk").write_text(
        "# Written by `make services`.\n"
        f"PREFECT_PORT ?= {prefect}\nMLFLOW_PORT ?= {mlflow}\n"
        f"ifneq (,$(findstring {identity},$(shell ps -ww -o args= -p {_control().getPID()} 2>/dev/null)))\n"
        f"export PREFECT_API_URL ?= http://127.0.0.1:{prefect}/api\n"
        f"export MLFLOW_TRACKING_URI ?= http://127.0.0.1:{mlflow}\n"
        "endif\n"
    )


def _await_all(prefect: str, mlflow: str) -> None:
    """Wait until all programs answer; the worker is started once its server does.

    Raises:
        AttuneError: if one ends instead, with the last lines of its log, or takes too long.
    """
    control, end = _control(), time.monotonic() + START_SECONDS
    # MLflow first: whether it fails is known long before Prefect's server answers
    urls = {"mlflow": f"http://127.0.0.1:{mlflow}", "prefect": f"http://127.0.0.1:{prefect}/api", "worker": ""}
    for name, url in urls.items():
        if control.getProcessInfo(name)["statename"] in ("STOPPED", "FATAL"):
            control.startProcess(name, False)
        while not answers(url) if url else control.getProcessInfo(name)["statename"] != "RUNNING":
            if control.getProcessInfo(name)["statename"] in ("BACKOFF", "FATAL") or time.monotonic() > end:
                log = FOLDER / "logs" / f"{name}.log"
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
                last = redacted("\n  ".join(["", *lines]))
                raise AttuneError(f"{name} does not start; its last lines:{last}", f"the whole log: {log}")
            time.sleep(0.3)


def _control() -> Any:
    from supervisor.xmlrpc import SupervisorTransport

    return ServerProxy("http://127.0.0.1", SupervisorTransport(None, None, f"unix://{_socket()}")).supervisor


def _socket() -> Path:
    path = Path.cwd() / FOLDER / "supervisor.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET:
        return path
    return Path(tempfile.gettempdir()) / f"attune-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"


def _ports() -> list[str]:
    """Return the ports of Prefect and MLflow, which the supervisor that runs here has in its name; none: none runs."""
    try:
        return str(_control().getIdentification()).split("-")[1:]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
