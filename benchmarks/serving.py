"""How many requests a second does a served model answer, and how soon?

    python benchmarks/serving.py [--rounds 3] [--seconds 5] [--concurrency 1 4] [--variants torch onnx int8]

Starts a real `mlflow models serve` per form of the champion (`register.model_name` of params.yaml, out of
MLFLOW_TRACKING_URI or mlflow.db) on loopback and asks it with texts of the test split, one and 32 to a request, from
several clients at once. The forms take turns, so that a busy moment hits all of them; servers that are not asked are
stopped meanwhile (SIGSTOP). Prints one table: medians of the rounds. The clients share the processor with the server,
as they would not in earnest. Needs a finished `make run`, and pip install -r requirements-dev.txt.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, product
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import polars as pl
import psutil

from stages.common.params import load_params
from stages.tracking.store import tracking_uri

BATCHES = (1, 32)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3, help="turns of which the medians are taken")
    options.add_argument("--seconds", type=float, default=5, help="how long a server is asked in each turn")
    options.add_argument("--concurrency", type=int, nargs="+", default=[1, 4], help="clients at once")
    options.add_argument("--variants", nargs="+", default=["torch", "onnx", "int8"], help="forms of the model")
    asked = options.parse_args()
    texts = pl.read_parquet("data/clean/test.parquet", columns=["text"])["text"].to_list()
    found: dict[tuple[str, int, int], list[np.ndarray]] = {}
    with ExitStack() as stack:
        servers = {variant: stack.enter_context(serving(variant)) for variant in asked.variants}
        for _ in range(asked.rounds):
            for batch, clients, variant in product(BATCHES, asked.concurrency, asked.variants):
                process, address, _ = servers[variant]
                process.send_signal(signal.SIGCONT)
                ask(address, texts, batch, clients, 0.5)
                found.setdefault((variant, batch, clients), []).append(
                    ask(address, texts, batch, clients, asked.seconds)
                )
                process.send_signal(signal.SIGSTOP)
        print("| form | texts a request | clients | requests/s | texts/s | p50 ms | p95 ms | up after s | memory MiB |")
        print("|---|---|---|---|---|---|---|---|---|")
        for (variant, batch, clients), rounds in sorted(found.items(), key=lambda item: item[0][1:]):
            process, _, started = servers[variant]
            rate = median(len(times) / asked.seconds for times in rounds)
            p50, p95 = (median(float(np.percentile(times, share)) * 1000 for times in rounds) for share in (50, 95))
            memory = process.memory_info().rss / 2**20
            print(
                f"| {variant} | {batch} | {clients} | {rate:,.0f} | {rate * batch:,.0f} | {p50:.1f} | {p95:.1f} "
                f"| {started:.1f} | {memory:,.0f} |"
            )


@contextmanager
def serving(variant: str) -> Iterator[tuple[psutil.Process, str, float]]:
    """Serve the champion in this form; yield the process that answers, its address, and how long it took to start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": tracking_uri(),
        "SERVING_MODEL_CONFIG": json.dumps({"variant": variant}),
    }
    environment.pop("PYTHONPATH", None)
    command = ["mlflow", "models", "serve", "-m", f"models:/{load_params().register_.model_name}@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    began, address = time.perf_counter(), f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as elsewhere:
        mlflow = subprocess.Popen(
            command, env=environment, cwd=elsewhere, stdout=log, stderr=log, start_new_session=True
        )
        try:
            while not up(address):
                if mlflow.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                time.sleep(0.05)
            started = time.perf_counter() - began
            (process,) = psutil.Process(mlflow.pid).children()
            ask(address, ["warm up"], 1, 1, 1.0)
            process.send_signal(signal.SIGSTOP)
            yield process, address, started
        finally:
            os.killpg(mlflow.pid, signal.SIGKILL)
            mlflow.wait()


def up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/ping").status_code == 200
    except httpx.TransportError:
        return False


def ask(address: str, texts: list[str], batch: int, clients: int, seconds: float) -> np.ndarray:
    """Return how long each request took that was answered within so many seconds, [n] in seconds."""
    until = time.perf_counter() + seconds

    def one(first: int) -> list[float]:
        rows, times = cycle(texts[first:] + texts[:first]), []
        with httpx.Client(base_url=address, timeout=60) as client:
            while (began := time.perf_counter()) < until:
                answer = client.post("/invocations", json={"inputs": [next(rows) for _ in range(batch)]})
                assert answer.status_code == 200, answer.text
                times.append(time.perf_counter() - began)
        return times

    with ThreadPoolExecutor(clients) as pool:
        return np.concatenate([np.array(times) for times in pool.map(one, range(0, clients * 101, 101))])


if __name__ == "__main__":
    main()
