"""A real `mlflow models serve`: thousands of good and bad requests, from several clients at once."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from stages.common.serving.classifier import Classifier, Package
from tests.unit.small_served import (
    CLEANED,
    DIRTY,
    LABELS,
    NAMES,
    THRESHOLD,
    WORDS,
    make_package,
    probabilities,
    register,
    working_in,
)

REQUESTS = 10_000
CLIENTS = 4
WARM_UP = 2_000
# What a leak of 2 KiB a request would come to; allocators and the pools of 6 threads take some MiB of their own.
GROWTH = 16 * 2**20
Headers = dict[bytes, bytes]
JSON: Headers = {b"Content-Type": b"application/json"}
LONG = " ".join(WORDS * 200)
BIDI = "\u202e balo \u2066 doka \x00 \ufeff"


@dataclass(frozen=True)
class Server:
    """A server process, and where it listens."""

    address: str
    process: psutil.Process
    log: Path

    def ask(self, body: Any) -> Any:
        """Send JSON; return the JSON that came back with status 200."""
        answer = httpx.post(f"{self.address}/invocations", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def store(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, in which the package is champion."""
    home = tmp_path_factory.mktemp("store")
    with working_in(home) as client:
        register(client, package)
    return home


@contextmanager
def serving(store: Path, folder: Path, **environment: str) -> Iterator[Server]:
    """Start `mlflow models serve` in a folder that has nothing to do with the checkout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if name not in (*NAMES, "PYTHONPATH")}
    uri = f"sqlite:///{store / 'mlflow.db'}"
    command = [Path(sys.executable).with_name("mlflow"), "models", "serve", "-m", "models:/tiny@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    log = folder / "server.log"
    with log.open("wb") as told:
        started = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "PATH": path, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", **environment},
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address, started, log)
        (process,) = (child for child in psutil.Process(started.pid).children(True) if "uvicorn" in child.cmdline()[1])
        yield Server(address, process, log)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def _wait_for(address: str, started: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert started.poll() is None, log.read_text()
        try:
            if httpx.get(f"{address}/ping").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"no server within a minute:\n{log.read_text()}")


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """A request, and what must come of it: the rows that are answered, or None: a status of 4xx."""

    body: bytes
    headers: Headers
    rows: list[int] | None = None
    top_k: int = len(LABELS)
    threshold: float = THRESHOLD


TEXTS = [*WORDS, *(f"{one} {other}" for one in WORDS for other in WORDS[:4]), LONG, "balo" * 500, BIDI, ""]


def good(chosen: list[int], form: int, params: dict[str, Any]) -> Case:
    """A request for these texts in one of the forms that are answered."""
    texts = [TEXTS[at] for at in chosen]
    rows = [{"text": text} for text in texts]
    body: dict[str, Any] = [
        {"inputs": texts},
        {"instances": texts},
        {"inputs": rows},
        {"inputs": {"text": texts}},
        {"dataframe_records": rows},
        {"dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]}},
        {"dataframe_split": {"index": list(range(len(texts))), "columns": ["text"], "data": [[one] for one in texts]}},
        {"instances": [{**row, "text_pair": None} for row in rows]},
    ][form]
    sent = json.dumps({**body, "params": params} if params else body).encode()
    threshold = params.get("threshold", THRESHOLD)
    return Case(sent, JSON, chosen, min(params.get("top_k", len(LABELS)), len(LABELS)), threshold)


BAD = [
    *(b"", b"{", b"null", b"[]", b'"balo"', b"1", b"\xff\xfe\x00", b'{"inputs": ["balo"', b'{"inputs": NaN}'),
    *(b'{"inputs": null}', b'{"inputs": [null]}', b'{"inputs": [1]}', b'{"inputs": [["balo"]]}', b'{"inputs": [true]}'),
    *(b'{"inputs": ["balo", null]}', b'{"inputs": {"txt": ["balo"]}}', b'{"inputs": [{"text": "balo"}, "doka"]}'),
    *(b'{"inputs": {"text": ["balo"], "text_pair": []}}', b'{"inputs": {}}', b'{"inputs": [{}]}', b'{"inputs": 0}'),
    *(b'{"inputs": ["balo"], "instances": ["balo"]}', b'{"inputs": ["balo"], "parms": {}}', b'{"text": "balo"}'),
    *(b'{"input": ["balo"]}', b'{"messages": []}', b'{"prompt": "balo"}', b'{"instances": [{"text": 1}]}'),
    *(
        b'{"dataframe_split": []}',
        b'{"dataframe_split": {"data": [["balo"]]}}',
        b'{"dataframe_records": {"text": "b"}, "x": 1}',
    ),
    b'{"dataframe_split": {"columns": ["text", "text_pair"], "data": [["balo"]]}}',
    b'{"dataframe_split": {"columns": [["text"]], "data": [["balo"]]}}',
    b'{"inputs": ["\\ud800"]}',
    b'{"inputs": ["caf\xe9"]}',  # Latin-1
    b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"inputs": ' + b'{"text": ' * 50_000 + b"1" + b"}" * 50_001,
    b'{"inputs": ' + b"9" * 5_000 + b"}",
    b'{"inputs": [' + b",".join([b'"balo"'] * 1_001) + b"]}",
    b'{"inputs": ["' + b"a" * 2**20 + b'"]}',
    *(
        b'{"inputs": ["balo"], "params": %s}' % params
        for params in (
            *(b'{"top_k": 0}', b'{"top_k": -1}', b'{"top_k": 1.5}', b'{"top_k": "1"}', b'{"top_k": true}', b"[]", b"1"),
            *(
                b'{"threshold": NaN}',
                b'{"threshold": 1.1}',
                b'{"threshold": -0.1}',
                b'{"threshold": "0.5"}',
                b'"top_k"',
            ),
            *(b'{"threshold": Infinity}', b'{"threshold": 1e999}', b'{"topk": 1}', b'{"top_k": 1e400}', b'{"": 1}'),
        )
    ),
]
WRONG_HEADERS: list[Headers] = [
    {},
    *(
        {b"Content-Type": kind}
        for kind in (b"text/plain", b"text/csv", b"application/vnd.apache.parquet", b";", b"\xe9")
    ),
    *({b"Content-Type": b"application/json; " + more} for more in (b"charset=latin-1", b"a=b", b"charset=utf-8; a=b")),
]


def requests(seed: int, count: int) -> list[Case]:
    """As many requests, two of three of them good."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        if draw.random() < 2 / 3:
            params: dict[str, Any] = draw.choice(
                [{}, {"top_k": 1}, {"top_k": 2, "threshold": 0}, {"threshold": 1}, {"top_k": 10**30}]
            )
            found.append(
                good(draw.choices(range(len(TEXTS)), k=draw.choice([1, 1, 1, 2, 8])), draw.randrange(8), params)
            )
        elif draw.random() < 0.2:
            found.append(Case(b'text\n"balo', draw.choice(WRONG_HEADERS)))
        else:
            # the largest ones seldom: what they cost is sending them
            body = draw.choice(BAD)
            found.append(Case(body if len(body) < 10_000 or draw.random() < 0.05 else b"{]", JSON))
    return found


def faults(server: Server, cases: list[Case], expected: np.ndarray) -> list[str]:
    """Send requests one after the other; return what is wrong with the answers."""
    found = []
    with httpx.Client(base_url=server.address, timeout=60) as client:
        for case in cases:
            answer = client.post("/invocations", content=case.body, headers=case.headers)
            wrong = _wrong(answer, case, expected)
            if wrong:
                found.append(f"{wrong}: {case.body[:100]!r} {case.headers} → {answer.status_code} {answer.text[:300]}")
    return found


def _wrong(answer: httpx.Response, case: Case, expected: np.ndarray) -> str | None:
    if any(trace in answer.text for trace in ("Traceback", "stack_trace", 'File "')):
        return "a trace"
    if case.rows is None:
        if not 400 <= answer.status_code < 500:
            return "no 4xx"
        return None if 0 < len(answer.json()["message"]) < 200 else "no short message"
    if answer.status_code != 200:
        return "no answer"
    predictions = answer.json()["predictions"]
    if len(predictions) != len(case.rows):
        return "not all rows"
    for at, given in zip(case.rows, predictions, strict=True):
        order = np.argsort(-expected[at])
        score, silent = expected[at].max(), expected[at].max() < case.threshold or TEXTS[at] == ""
        labels = [LABELS[label] for label in order[: case.top_k]]
        if (
            list(given["probabilities"]) != labels
            or not np.allclose(list(given["probabilities"].values()), expected[at][order[: case.top_k]], atol=1e-5)
            or abs(given["score"] - score) > 1e-5
            or (given["label"], given["abstained"]) != (None if silent else labels[0], silent)
        ):
            return f"not the answer {expected[at]}"
    return None


# ── promises ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ten_thousand_good_and_bad_requests_leave_the_server_as_it_was(
    package: Package, store: Path, tmp_path: Path
) -> None:
    """All good ones answered rightly, all bad ones refused with a short message, and no memory lost."""
    expected = probabilities(package, TEXTS)
    margin = np.abs(np.sort(expected)[:, :-1] - np.sort(expected)[:, 1:]).min(), np.abs(expected - THRESHOLD).min()
    assert min(margin) > 1e-5  # so that rounding decides nothing
    with serving(store, tmp_path, SERVING_MODEL_CONFIG='{"threads": 1}') as server:
        largest = [Case(body, JSON) for body in BAD] + [Case(b"", headers) for headers in WRONG_HEADERS]
        every_form = [good([at, -2 % len(TEXTS)], form, {}) for at in range(len(TEXTS)) for form in range(8)]
        assert not faults(server, largest + every_form, expected)
        shares = [requests(seed, WARM_UP // CLIENTS) for seed in range(CLIENTS)]
        later = [requests(100 + seed, (REQUESTS - WARM_UP) // CLIENTS) for seed in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            found = [
                one for share in clients.map(lambda cases: faults(server, cases, expected), shares) for one in share
            ]
            before = server.process.memory_info().rss
            found += [
                one for share in clients.map(lambda cases: faults(server, cases, expected), later) for one in share
            ]
        grown = server.process.memory_info().rss - before
        assert not found, "\n".join(found[:10])
        assert grown < GROWTH, f"{grown / 2**20:.1f} MiB more than after the first {WARM_UP} requests"
        assert "Traceback" not in server.log.read_text()
        print(f"{before / 2**20:.0f} MiB, {grown / 2**20:+.1f} MiB")


@pytest.mark.parametrize("variant", ["torch", "onnx", "int8"])
def test_a_flag_says_which_form_of_the_same_version_is_served(
    package: Package, store: Path, tmp_path: Path, variant: Any
) -> None:
    expected = Classifier(package, variant, threads=1).probabilities([*WORDS, CLEANED])
    with serving(store, tmp_path, SERVING_MODEL_CONFIG=json.dumps({"variant": variant})) as server:
        found = server.ask({"inputs": [*WORDS, DIRTY]})
        given = [[answer["probabilities"][label] for label in LABELS] for answer in found]
        np.testing.assert_allclose(given, expected, atol=1e-5)
        libraries = {Path(mapped.path).name for mapped in server.process.memory_maps()}
        assert ("libtorch_cpu.so" in libraries) == (variant == "torch")
