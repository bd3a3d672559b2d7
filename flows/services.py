"""`python -m flows.services start|stop|status`: Prefect's server, a worker and MLflow's server, for this machine alone.

supervisor runs them, as services.conf says; supervised.py finds and ends them. docs/services.md is the manual.
"""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from flows.command import exit_status
from flows.local.local_worker import POOL, polls, prepare_pool
from flows.local.supervised import PORT_VARIABLES, Services, end_all, failed, find, identity, launch, processes
from flows.local.temporary_server import answers
from stages.common.errors import AttuneError
from stages.common.locks import in_turn
from stages.common.tracking.store import without_password

FOLDER = Path(".services")  # git-ignored, and for this user alone: Prefect's database, logs
ADDRESSES = "env.mk"  # what the Makefile includes
KEPT = "ports.json"
PORTS = {"prefect": 4200, "mlflow": 5000}
START_SECONDS = 150
WAITING = "another `make services` or `make stop` is at work; waiting for it …"
NOT_RUNNING = ("STOPPED", "EXITED", "FATAL")


def main(arguments: list[str] | None = None) -> int:
    """Start, stop or list the services of the project in this folder."""
    parser = argparse.ArgumentParser(prog="python -m flows.services", description="Prefect and MLflow on this machine.")
    parser.add_argument("what", choices=["start", "stop", "status"])
    what = parser.parse_args(arguments).what
    folder, console = Path.cwd().resolve() / FOLDER, Console(highlight=False, soft_wrap=True)
    work = {"start": start, "stop": stop, "status": status}[what]
    return exit_status(lambda: work(folder, console), "interrupted; `make services ARGS=status` shows how things stand")


def start(folder: Path, console: Console) -> None:
    """Start what is not running, wait until all of it answers, and say where.

    Raises:
        AttuneError: if a port is taken, or a program cannot be started; then nothing is left running.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    with in_turn(folder / "lock", lambda: console.print(WAITING)):
        now = find(folder)
        if now is not None:
            for name, variable in PORT_VARIABLES.items():
                if os.environ.get(variable) and _port(name, {}) != now.ports[name]:
                    raise AttuneError(f"the services run already, with {variable}={now.ports[name]}", "make stop first")
            for name, told in _states(now).items():
                if told["statename"] in NOT_RUNNING and name != "worker":  # supervisor gave it up
                    now.start(name)
            _await_all(now, console, fresh=False)
            console.print("the services run already")
        else:
            end_all(folder)  # what a killed supervisor has left
            ports = {name: _port(name, _kept_ports(folder)) for name in PORTS}
            _check_free(ports)
            try:
                now = launch(folder, ports)
                _await_all(now, console, fresh=True)
            except BaseException:
                end_all(folder)
                raise
        _write_addresses(now)
    _tell(now, console)


def stop(folder: Path, console: Console) -> None:
    """End all that the services started, and wait until it has ended."""
    if not folder.is_dir() and not processes(folder):
        console.print("no services are running here")
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    with in_turn(folder / "lock", lambda: console.print(WAITING)), console.status("ending the services …"):
        ended = end_all(folder)
        (folder / ADDRESSES).unlink(missing_ok=True)
    console.print(f"the services have ended ({ended} processes)" if ended else "no services are running here")


def status(folder: Path, console: Console) -> int:
    """Say of each program whether it runs; return 0 if all do, or else 1."""
    now = find(folder)
    if now is None:
        left = len(processes(folder))
        lost = f", but {left} of their processes, whose supervisor was killed; make stop or make services ends them"
        console.print(f"no services are running here{lost if left else '; make services starts them'}")
        return 1
    states = _states(now)
    up = {name: _answers(now, name) for name in PORTS} | {
        "worker": states["worker"]["statename"] in ("STARTING", "RUNNING")
    }
    where = {"prefect": now.api_url, "mlflow": now.mlflow_url, "worker": f"polls the work pool {POOL}"}
    for name, ok in up.items():
        how = f"process {states[name]['pid']}" if ok else f"does not answer: {states[name]['statename'].lower()}"
        console.print(Text(f"{name:8} {where[name]:30} {how}"))
    return 0 if all(up.values()) else 1


def _states(services: Services) -> dict[str, dict[str, Any]]:
    try:
        return services.states()
    except OSError as error:  # its socket was deleted, say
        raise AttuneError(f"supervisor runs, but does not answer ({error})", "make stop, then make services") from None


def _kept_ports(folder: Path) -> dict[str, int]:
    """Return the ports of last time, so that links in messages and browsers still lead somewhere."""
    try:
        kept = json.loads((folder / KEPT).read_text(encoding="utf-8"))
        return {name: int(kept[name]) for name in PORTS}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _port(name: str, kept: Mapping[str, int]) -> int:
    variable, usual = PORT_VARIABLES[name], kept.get(name, PORTS[name])
    given = os.environ.get(variable) or str(usual)
    if not given.isascii() or not given.isdigit() or not 0 < int(given) < 65536:
        raise AttuneError(f"{variable}={given} is no port", f"make services {variable}={usual}")
    return int(given)


def _check_free(ports: dict[str, int]) -> None:
    if len(set(ports.values())) < len(ports):
        raise AttuneError(f"{' and '.join(PORT_VARIABLES.values())} are the same", "take another for one of them")
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                what = f"the port {port}, which {name} is to listen on, cannot be had: {error.strerror}"
                fix = f"end the program that has it, or take another: make services {PORT_VARIABLES[name]}={port + 10}"
                raise AttuneError(what, fix) from None


def _answers(services: Services, name: str) -> bool:
    return answers({"prefect": services.api_url, "mlflow": services.mlflow_url}[name])


def _await_all(services: Services, console: Console, *, fresh: bool) -> None:
    """Wait until all programs answer; the worker is started once its server does.

    Raises:
        AttuneError: if one ends instead, with the last lines of its log, or takes too long.
    """
    began, since = time.monotonic(), datetime.now(UTC)
    waiting = [*PORTS, "worker"]
    ended = ("BACKOFF", *NOT_RUNNING) if fresh else ("FATAL",)  # what ran before may be on its way up again
    with console.status("starting …") as line:
        while waiting:
            for name, told in _states(services).items():
                if name not in waiting or (name == "worker" and "prefect" in waiting):
                    continue
                if name == "worker" and told["statename"] in (NOT_RUNNING if not fresh else ("STOPPED",)):
                    prepare_pool(services.api_url, lambda line: console.print(Text(line), style="yellow"))
                    services.start(name)
                elif told["statename"] in ended:
                    raise failed(services, name, f"{name} ended at once")
                elif (
                    polls(services.api_url, since if fresh else None) if name == "worker" else _answers(services, name)
                ):
                    waiting.remove(name)
                    if fresh:
                        console.print(f"{name} answers after {time.monotonic() - began:.0f} s")
            if waiting and time.monotonic() - began > START_SECONDS:
                raise failed(services, waiting[0], f"{waiting[0]} does not answer within {START_SECONDS} s")
            line.update(f"waiting for {', '.join(waiting)}: {time.monotonic() - began:.0f} s …")
            time.sleep(0.3 if waiting else 0)


def _write_addresses(services: Services) -> None:
    """Write what the Makefile includes. It counts for as long as that very supervisor runs, and not after a crash."""
    (services.folder / KEPT).write_text(json.dumps(services.ports), encoding="utf-8")
    pid, name = services.supervisor.pid, identity(services.folder)
    command_line = f"ps -ww -o args= -p {pid} 2>/dev/null || tr '\\0' ' ' 2>/dev/null </proc/{pid}/cmdline"
    (services.folder / ADDRESSES).write_text(
        "# Written by `make services`, removed by `make stop`.\n"
        f"ifneq (,$(findstring {name},$(shell {command_line})))\n"
        f"export PREFECT_API_URL ?= {services.api_url}\n"
        f"export MLFLOW_TRACKING_URI ?= {services.mlflow_url}\n"
        "endif\n"
    )


def _tell(services: Services, console: Console) -> None:
    console.print(f"  Prefect  http://127.0.0.1:{services.ports['prefect']}")
    console.print(f"  MLflow   {services.mlflow_url}")
    console.print(f"  worker   polls the work pool {POOL}; logs are in {FOLDER / 'logs'}/")
    console.print("next: make deploy (the schedules of prefect.yaml), make flow (a run now), make stop (end them)")
    for variable, own in {"PREFECT_API_URL": services.api_url, "MLFLOW_TRACKING_URI": services.mlflow_url}.items():
        if (given := os.environ.get(variable) or own) != own:
            told = f"{variable} is set here, so programs of this terminal go to {without_password(given)}"
            console.print(Text(told, style="yellow"))


if __name__ == "__main__":
    sys.exit(main())
