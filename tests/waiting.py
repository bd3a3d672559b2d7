"""Waiting for what other processes do, and ports for them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(command: list[str], url: str, log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own; the block begins when it answers at `url`, and ends with its end.

    Without a `url`, the block begins at once.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            return httpx.get(url).is_success
        return False

    try:
        if url:
            until(answers, 120)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
