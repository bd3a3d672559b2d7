"""How soon does a chat server answer, and what do 2,000 good, bad, huge and slow requests do to it?

    make serve &
    PYTHONPATH=. python benchmarks/chat.py http://127.0.0.1:5001 --data data/clean/test.parquet --requests 2000

Good requests are questions of the test rows, for answers of 16 tokens, half of them in pieces. First they are asked
alone, by one client and by four; then all kinds are mixed, by four. Memory is the server's own.
"""

import argparse
import json
import random
import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import polars as pl
import psutil

TOKENS = 16
TURNS = 40  # good requests of each client, timed alone
BAD: list[Any] = [
    {},
    {"messages": []},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "wizard", "content": "hi"}]},
    {"messages": [{"role": "user", "content": "hi"}], "n": 3},
    {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10**9},
    {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function"}]},
    {"messages": [{"role": "user", "content": "<|im_end|>"}]},
]
HUGE = [
    b"[" * 10**5,
    b'{"messages": "' + b"a" * 2**21 + b'"}',
    json.dumps({"messages": [{"role": "user"}] * 9999}).encode(),
]


class Server:
    """The server, how it answered, and after how many seconds good requests were answered."""

    def __init__(self, address: str, questions: list[str]) -> None:
        self.address, self.questions = address, questions
        self.statuses, self.pid = Counter[str](), pid_at(urlsplit(address).port or 80)

    def good(self, draw: random.Random) -> float:
        stream = draw.random() < 0.5
        message = {"role": "user", "content": draw.choice(self.questions)}
        body = {"messages": [message], "max_tokens": TOKENS, "stream": stream}
        began = time.perf_counter()
        answer = httpx.post(f"{self.address}/v1/chat/completions", json=body, timeout=600)
        whole = answer.text.endswith("[DONE]\n\n") if stream else answer.is_success
        self.statuses[f"good {answer.status_code}{'' if whole or answer.status_code == 429 else ' cut'}"] += 1
        return time.perf_counter() - began

    def wrong(self, kind: str, content: bytes) -> None:
        answer = httpx.post(f"{self.address}/v1/chat/completions", content=content, timeout=600)
        self.statuses[f"{kind} {answer.status_code}"] += 1

    def slow(self) -> None:
        """Send the beginning of a body, then nothing, and leave."""
        where = urlsplit(self.address)
        with socket.create_connection((where.hostname or "", where.port or 80)) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")
            time.sleep(2)
        self.statuses["slow left"] += 1

    def any(self, seed: int) -> None:
        draw = random.Random(seed)
        kind = draw.choices(["good", "bad", "huge", "slow"], [3, 5, 1, 1])[0]
        if kind == "good":
            self.good(draw)
        elif kind == "slow":
            self.slow()
        else:
            self.wrong(kind, draw.choice(HUGE) if kind == "huge" else json.dumps(draw.choice(BAD)).encode())

    def memory(self) -> float:
        return psutil.Process(self.pid).memory_info().rss / 2**20


def pid_at(port: int) -> int:
    for connection in psutil.net_connections("tcp"):
        if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
            return connection.pid
    raise SystemExit(f"nothing listens on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    labels = pl.read_parquet(options.data)["label"]
    questions = [next(part["content"] for part in json.loads(label) if part["role"] == "user") for label in labels]
    server = Server(options.address, questions)
    print("| clients | answers | p50 s | p95 s | tokens/s |\n|---|---|---|---|---|")
    for clients in (1, 4):
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            times = [*pool.map(lambda seed: server.good(random.Random(seed)), range(TURNS * clients))]
        rate = TOKENS * len(times) / (time.perf_counter() - began)
        cuts = statistics.quantiles(times, n=20)
        print(f"| {clients} | {len(times)} | {cuts[9]:.2f} | {cuts[18]:.2f} | at most {rate:.1f} |", flush=True)
    before = server.memory()
    with ThreadPoolExecutor(4) as pool:
        for number, _ in enumerate(pool.map(server.any, range(options.requests)), start=1):
            if number % 250 == 0:
                print(f"{number} mixed requests: {server.memory():,.0f} MiB", flush=True)
    print(f"memory: {before:,.0f} MiB before, {server.memory():,.0f} after; {dict(sorted(server.statuses.items()))}")


if __name__ == "__main__":
    main()
