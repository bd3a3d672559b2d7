"""Stages without the seconds that each takes to import its libraries: a process that has them already forks for each.

`python -m tests.pipeline.quick_stages SOCKET` serves. The command of a stage is then `python quick.py NAME`: the server
runs the `stages.NAME` of the client's folder, with its variables, output and exit status.
"""

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.projects import PROJECT

HEAVY = ("torch", "transformers.trainer", "mlflow.pyfunc", "mlflow.transformers", "sklearn.linear_model",
         "sklearn.feature_extraction.text", "accelerate", "pandera.polars", "cleanlab", "optuna",
         "onnxruntime")  # fmt: skip
CLIENT = """import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect({address!r})
    socket.send_fds(client, [b"fds"], [1, 2])
    client.sendall(json.dumps([sys.argv[1], os.getcwd(), dict(os.environ)]).encode())
    client.shutdown(socket.SHUT_WR)
    sys.exit(int(client.recv(16) or b"1"))
"""


def client(address: Path) -> str:
    """Return quick.py."""
    return CLIENT.format(address=str(address))


@contextmanager
def serving(address: Path) -> Iterator[None]:
    """Serve while the block runs."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "tests.pipeline.quick_stages", str(address)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    try:
        while not address.exists():
            assert process.poll() is None, "the server did not start"
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def main(address: str) -> None:
    """Serve one stage after the other."""
    for name in HEAVY:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.part")
        server.listen()
        Path(f"{address}.part").rename(address)
        while True:
            connection, _ = server.accept()
            with connection:
                _serve(connection)


def _serve(connection: socket.socket) -> None:
    _, fds, *_ = socket.recv_fds(connection, 3, 2)
    with connection.makefile("rb") as file:
        request = json.load(file)
    child = os.fork()
    if not child:
        _become(fds, *request)
    for fd in fds:
        os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(code if code >= 0 else 1).encode())


def _become(fds: list[int], name: str, folder: str, environment: dict[str, str]) -> None:
    """Run a stage, and end."""
    code: object = 1
    try:
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[0] = folder
        for module in [module for module in sys.modules if module.partition(".")[0] in ("stages", "flows", "tests")]:
            del sys.modules[module]
        sys.argv = sys.orig_argv = [sys.executable, "-m", f"stages.{name}"]
        try:
            runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main(sys.argv[1])
