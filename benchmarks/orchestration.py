"""What does the Prefect flow cost on top of `dvc repro`?

    python benchmarks/orchestration.py [--rounds 5] [--full 1]

Runs both by turns in the current checkout, against a real Prefect server of its own (with data in a temporary folder):
when nothing has to run, and with every stage forced. A full run's time hangs on the training, which varies by more than
what is looked for; so of a full run the time outside the stages is compared (wall time less what the stages say they
took).
Prints one table: medians. Needs a finished `make run`; it leaves the same outs.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from stages.common.pipeline.graph import read_graph

PROGRAMS = {
    "dvc repro": [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"],
    "flow": [sys.executable, "-m", "flows.pipeline"],
}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5, help="turns with nothing to run")
    options.add_argument("--full", type=int, default=1, help="turns with every stage forced; 0: none")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as home, server(home) as environment:
        for command in PROGRAMS.values():
            run(command, environment)  # once to warm up, and to be up to date
        idle: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        whole: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        outside: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        for _ in range(asked.rounds):
            for name, command in PROGRAMS.items():
                idle[name].append(run(command, environment))
        for _ in range(asked.full):
            for name, command in PROGRAMS.items():
                whole[name].append(run([*command, "--force"], environment))
                outside[name].append(whole[name][-1] - inside())
    print("| | dvc repro | flow | the flow adds |")
    print("|---|---|---|---|")
    lines = {"nothing to run": idle} | ({"full run": whole, "of it outside the stages": outside} if asked.full else {})
    for what, seconds in lines.items():
        of_dvc, of_flow = (median(seconds[name]) for name in PROGRAMS)
        print(f"| {what} | {of_dvc:.2f} s | {of_flow:.2f} s | {of_flow - of_dvc:+.2f} s |")
    if asked.full:
        more = median(outside["flow"]) - median(outside["dvc repro"])
        print(f"\nof a full run: {more / median(whole['dvc repro']):+.1%}")


def run(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds that a program takes."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def inside() -> float:
    """Return the seconds that the stages of the last full run took by their own account."""
    return sum(float(json.loads(Path(f"logs/{name}.json").read_text())["seconds"]) for name in read_graph())


@contextmanager
def server(home: str) -> Iterator[dict[str, str]]:
    """Run a Prefect server; yield the environment of programs that talk to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"PREFECT_HOME": home, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    paths = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, **own, **paths}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield environment
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
