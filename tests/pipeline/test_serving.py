"""A real `mlflow models serve`: good and bad requests by the thousand, from several clients at once."""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from stages.serving.answers import Question, answers
from stages.serving.backends import Package, Predictor
from tests.projects import MLFLOW
from tests.unit.small_served import WORDS, make_package, register, working_in
from tests.waiting import free_port, server

CLIENTS = 4
REPEATS = 3  # of all good and most bad requests, by each client, after the first that warm up
GROWTH = 16 * 2**20  # allocators and the pools of threads take some MiB; a leak of 5 KiB a request is more
TEXTS = [*WORDS, *(f"{first} {second}" for first in WORDS for second in WORDS[:4]), " ".join(WORDS * 200), "balo" * 500]
TEXTS += ["\u202e balo \u2066 doka \x00 \ufeff", ""]


class Request(NamedTuple):
    """A body, its content type, and the JSON that must come of it; None: a status of 4xx."""

    body: bytes
    content_type: bytes | None = b"application/json"
    answer: str | None = None


def good(classifier: Predictor, texts: list[str], form: int, **params: Any) -> Request:
    """A request for these texts in one of the forms that are answered."""
    body: dict[str, Any] = [
        {"inputs": texts},
        {"instances": texts},
        {"inputs": [{"text": text} for text in texts]},
        {"dataframe_records": [{"text": text, "text_pair": None} for text in texts]},
        {"dataframe_split": {"index": [*range(len(texts))], "columns": ["text"], "data": [[text] for text in texts]}},
    ][form]
    expected = {"predictions": answers(classifier, Question(texts, None, **params))}
    return Request(json.dumps({**body, "params": params} if params else body).encode(), answer=json.dumps(expected))


INPUTS = ["null", "NaN", "0", "{}", '["balo", null]', "[1]", "[true]", '[["balo"]]', "[{}]", '{"text": ["balo"]}']
PARAMS = ['{"top_k": 0}', '{"top_k": 1.5}', '{"top_k": true}', "[]", '{"threshold": NaN}', '{"threshold": 1.1}']
BODIES = [
    *(b"", b"{", b"null", b"[]", b'"balo"', b"1", b"\xff\xfe\x00", b'{"inputs": ["caf\xe9"]}'),
    *(b'{"inputs": %s}' % inputs.encode() for inputs in [*INPUTS, '["\\ud800"]']),
    *(b'{"inputs": ["balo"], "params": %s}' % params.encode() for params in [*PARAMS, '{"topk": 1}']),
    *(b'{"inputs": ["balo"], "instances": ["balo"]}', b'{"inputs": ["balo"], "parms": {}}', b'{"text": "balo"}'),
    *(b'{"input": ["balo"]}', b'{"messages": []}', b'{"dataframe_split": {"data": [["balo"]]}}'),
    b'{"dataframe_split": {"columns": ["text", "text_pair"], "data": [["balo"]]}}',
]
LARGE = [
    b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"inputs": ' + b"9" * 5_000 + b"}",
    b'{"inputs": [' + b",".join([b'"balo"'] * 1_001) + b"]}",
    b'{"inputs": ["' + b"a" * 2**20 + b'"]}',
]
TYPES = [None, b"text/plain", b"text/csv", b"application/vnd.apache.parquet", b";", b"application/json; charset=ascii"]
BAD = [*map(Request, BODIES), *(Request(b'{"inputs": ["balo"]}', kind) for kind in TYPES)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package, and a store in which that is champion."""
    home = tmp_path_factory.mktemp("store")
    with working_in(home) as client:
        register(client, make_package(home))
    return home


@contextmanager
def serving(store: Path, folder: Path, **config: Any) -> Iterator[tuple[str, psutil.Process, Path]]:
    """Start `mlflow models serve` in a folder that has nothing to do with the checkout: address, process and log."""
    environment = {name: value for name, value in os.environ.items() if name not in (*MLFLOW, "PYTHONPATH")}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{store / 'mlflow.db'}", "OMP_NUM_THREADS": "1"}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"}
    environment |= {"SERVING_MODEL_CONFIG": json.dumps(config)}
    command = ["mlflow", "models", "serve", "-m", "models:/tiny@champion", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port := free_port())]
    log, address = folder / "server.log", f"http://127.0.0.1:{port}"
    with server(command, f"{address}/ping", log, cwd=folder, env=environment) as started:
        (process,) = (child for child in psutil.Process(started.pid).children(True) if "uvicorn" in child.cmdline()[1])
        yield address, process, log


def faults(address: str, requests: list[Request]) -> list[str]:
    """Send requests one after the other; return what is wrong with the answers."""
    result = []
    with httpx.Client(base_url=address, timeout=60) as client:
        for request in requests:
            headers = {b"Content-Type": request.content_type} if request.content_type else {}
            response = client.post("/invocations", content=request.body, headers=headers)
            if request.answer:
                right = response.status_code == 200 and response.text == request.answer
            else:
                message = response.json()["message"]
                right = 400 <= response.status_code < 500 and 0 < len(message) < 200 and "balo" not in message
            if not right:
                result.append(f"{request.body[:100]!r} {headers} → {response.status_code} {response.text[:300]}")
    return result


def test_thousands_of_good_and_bad_requests_leave_the_server_as_it_was(store: Path, tmp_path: Path) -> None:
    """All good ones answered rightly, all bad ones refused with a short message, and no memory lost."""
    classifier = Predictor(Package.within(store), "onnx", threads=1)
    requests = [good(classifier, [text, "mini", "\u202e"], form) for form in range(5) for text in TEXTS]
    requests += [good(classifier, [text], 0, top_k=2, threshold=limit) for limit in (0.0, 1.0) for text in TEXTS]
    with serving(store, tmp_path, threads=1) as (address, process, log), ThreadPoolExecutor(CLIENTS) as clients:

        def check(repeats: int) -> None:
            shares = clients.map(lambda _: faults(address, (requests + BAD) * repeats), range(CLIENTS))
            assert not (wrong := [fault for share in shares for fault in share]), "\n".join(wrong[:10])

        assert not faults(address, list(map(Request, LARGE)))
        check(1)
        before = process.memory_info().rss
        check(REPEATS)
        grown = process.memory_info().rss - before
        assert grown < GROWTH, f"{grown / 2**20:.1f} MiB more than after the first rounds"
        assert "Traceback" not in log.read_text()
        assert "libtorch_cpu.so" not in {Path(mapped.path).name for mapped in process.memory_maps()}
