"""A real `python -m flows.serve` of a registered language model, asked by OpenAI's own client and by strangers."""

import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from stages.common.text.cleaning import FILE as TEXT_CLEANING
from stages.common.text.cleaning import TextCleaning
from stages.serving.backends import Package
from stages.tasks.predicted import AnswerDecision
from tests.chats import label, make_language_model
from tests.projects import MLFLOW, PROJECT
from tests.unit.small_served import register, working_in
from tests.unit.test_generation import chatting, speaker_of
from tests.waiting import free_port, server, until

ASKED = [{"role": "user", "content": "are you open b"}]
GOOD: dict[str, Any] = {"messages": ASKED, "max_tokens": 6}
BAD: list[Any] = [
    {},
    [],
    {"messages": []},
    {"messages": ASKED, "max_tokens": 0},
    {"messages": ASKED, "max_tokens": 10**9},
    {"messages": ASKED, "temperature": -1},
    {"messages": ASKED, "n": 2},
    {"messages": ASKED, "tools": [{"type": "function"}]},
    {"messages": ASKED, "response_format": {"type": "json_object"}},
    {"messages": ASKED, "frequency_penalty": 0.5},
    {"messages": ASKED, "logit_bias": {"5": 100}},
    {"messages": ASKED, "top_k": 5},
    {"messages": [*ASKED, {"role": "assistant", "content": "", "tool_calls": [{"id": "a"}]}, *ASKED]},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "wizard", "content": "hi"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
    {"messages": [*ASKED, *ASKED]},
    {"messages": [*ASKED, {"role": "assistant", "content": "until six"}]},
    {"messages": [{"role": "user", "content": " "}]},
    {"messages": [{"role": "user", "content": "<|im_end|>"}]},
    {"messages": [{"role": "user", "content": "open " * 5000}]},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a tiny language model is champion, with code that calls its owner otherwise than ours."""
    home = tmp_path_factory.mktemp("store")
    model, serving = chatting(make_language_model(home / "model", seed=3)), home / "serving"
    AnswerDecision(task="causal-lm").write(serving)
    (serving / TEXT_CLEANING).write_text(TextCleaning().as_text())
    with working_in(home) as client:
        register(client, Package(model, None, serving))
    (code,) = home.glob("mlruns/**/code/stages/tasks/chat_api.py")
    code.write_text(code.read_text().replace('"owned_by": "attune"', '"owned_by": "registered"'))
    return home


@contextmanager
def serving(home: Path, log: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Serve the champion, by the code that is registered with it."""
    environment = {name: value for name, value in os.environ.items() if name not in MLFLOW}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "flows.serve", "models:/tiny@champion", "--port", str(port := free_port())]
    with server(command, f"http://127.0.0.1:{port}/ping", log, cwd=PROJECT, env=environment) as started:
        yield f"http://127.0.0.1:{port}", psutil.Process(started.pid)


@pytest.fixture(scope="module")
def served(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    with serving(home, tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running


def test_openais_client_gets_the_models_answer_at_once_and_in_pieces(served: tuple[str, Any], home: Path) -> None:
    address, _ = served
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
    assert [(model.id, model.owned_by) for model in client.models.list()] == [("tiny", "registered")]
    speaker = speaker_of(home / "model")
    prompt = speaker.template.question(ASKED)
    (expected,) = speaker.answers([prompt], 12)
    given: dict[str, Any] = {"model": "tiny", "messages": ASKED, "max_tokens": 12}
    whole = client.chat.completions.create(**given)
    assert whole.choices[0].message.content == expected["answer"]
    assert whole.choices[0].finish_reason == expected["finish"] and whole.usage
    assert whole.usage.prompt_tokens == len(prompt)
    chunks = [*client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == expected["answer"] and chunks[-1].usage == whole.usage
    stop = expected["answer"][3:5]
    cut = client.chat.completions.create(**given, stop=stop)
    assert cut.choices[0].message.content == expected["answer"].partition(stop)[0]
    assert client.models.retrieve("tiny").id == "tiny"
    # an answer may be empty, and clients give it back as they got it
    history = [*ASKED, whole.choices[0].message.model_dump(), *ASKED, {"role": "assistant", "content": ""}, *ASKED]
    neutral: dict[str, Any] = {"n": 1, "presence_penalty": 0, "tools": [], "logprobs": False, "user": "me"}
    again = client.chat.completions.create(**{**given, "messages": history}, **neutral)
    assert again.choices[0].finish_reason
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**given, "model": "gpt"})
    both = {"inputs": [label("are you open b", "until six"), label("are you open b")]}
    scored, said = httpx.post(f"{address}/invocations", json=both).json()["predictions"]
    assert scored["tokens"] > 0 and scored["answer"] is None
    assert said["answer"].startswith(expected["answer"]) and said["loss"] is None


def test_a_thousand_kinds_of_requests_leave_the_server_as_it_was(served: tuple[str, psutil.Process]) -> None:
    """Good ones are answered, bad ones refused in OpenAI's shape, with 4xx, and no memory is lost."""
    address, process = served
    raw = [b"", b"{", b"\xff", b"[" * 100_000, b'{"messages": "' + b"a" * 2**21 + b'"}']
    bodies = [*((json.dumps(body).encode(), False) for body in BAD), *((body, False) for body in raw)]
    bodies += [(json.dumps({**GOOD, "stream": stream}).encode(), True) for stream in (False, True)] * 4

    def ask(seed: int) -> list[str]:
        wrong, mixed = [], random.Random(seed).sample(bodies, len(bodies))
        with httpx.Client(base_url=address, timeout=120) as client:
            for body, right in mixed:
                answer = client.post("/v1/chat/completions", content=body)
                fine = answer.status_code in (200, 429) if right else 400 <= answer.status_code < 500
                if not fine or not (right or answer.json()["error"]["message"]):
                    wrong.append(f"{body[:80]!r} → {answer.status_code} {answer.text[:200]}")
        return wrong

    with ThreadPoolExecutor(4) as clients:
        assert not [fault for faults in clients.map(ask, range(8)) for fault in faults]
        before = process.memory_info().rss
        assert not [fault for faults in clients.map(ask, range(8, 24)) for fault in faults]
    assert process.memory_info().rss - before < 24 * 2**20
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as slow:  # who never ends a body
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")
        assert httpx.post(f"{address}/v1/chat/completions", json=GOOD, timeout=60).is_success


def test_a_client_that_leaves_ends_its_answer_and_one_that_reads_slowly_delays_nobody(served: tuple[str, Any]) -> None:
    address, process = served
    long = {"messages": ASKED, "max_tokens": 200, "stream": True}
    for _ in range(20):  # more than may wait at once
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=long) as stream:
            next(stream.iter_lines())
        with suppress(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/chat/completions", json={**long, "stream": False}, timeout=0.01)

    def answered() -> bool:
        return httpx.post(f"{address}/v1/chat/completions", json=GOOD, timeout=60).is_success

    until(answered, 5)
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=long) as stream:
        next(stream.iter_lines())
        assert answered()
    until(lambda: process.num_threads() < 60)


def test_what_was_begun_is_answered_when_the_server_is_told_to_end(home: Path, tmp_path: Path) -> None:
    with serving(home, tmp_path / "log") as (address, process):
        long = {"messages": ASKED, "max_tokens": 150, "temperature": 2.0, "seed": 1}
        answers: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{address}/v1/chat/completions", json=long, timeout=60))
        )
        asking.start()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert answers[0].status_code == 200 and answers[0].json()["choices"][0]["finish_reason"]
        until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
