"""Stages without the seconds that each takes to import its libraries: a process that has them already forks for each.

`python -m tests.pipeline.quick_stages SOCKET` serves. The command of a stage is then `python quick.py NAME`: the server
runs the `stages.NAME` of the folder that this is called in, with its variables, output and exit status.
"""

import array
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

HEAVY = (
    "torch",
    "transformers.trainer",
    "mlflow.pyfunc",
    "mlflow.transformers",
    "sklearn.linear_model",
    "sklearn.feature_extraction.text",
    "accelerate",
    "pandera.polars",
    "cleanlab",
    "optuna",
    "onnxruntime",
)
CLIENT = """import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect({address!r})
    asked = json.dumps([sys.argv[1], os.getcwd(), dict(os.environ)]).encode()
    fds = array.array("i", [1, 2])
    client.sendmsg([len(asked).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    client.sendall(asked)
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
    size, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_LEN(8))
    fds = array.array("i", ancillary[0][2])
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += connection.recv(1 << 16)
    number = os.fork()
    if not number:
        _become(fds, *json.loads(asked))
    for fd in fds:
        os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    connection.sendall(str(code if code >= 0 else 1).encode())


def _become(fds: "array.array[int]", name: str, folder: str, environment: dict[str, str]) -> None:
    """Run a stage, and end."""
    code: object = 1
    try:
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[0] = folder
        for module in [one for one in sys.modules if one.partition(".")[0] in ("stages", "flows", "tests")]:
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
