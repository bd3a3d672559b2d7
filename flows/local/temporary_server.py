"""A Prefect server for one run, where PREFECT_API_URL names none.

Prefect starts one of its own then, but in the terminal's process group: Ctrl-C ends that server before the flow can
tell it anything, and the flow goes on asking for minutes.
"""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from flows.running.stage_process import end_group
from stages.common.errors import AttuneError
from stages.common.redact import redacted

START_SECONDS, REACH_SECONDS, DRAIN_SECONDS = 120, 5.0, 10.0


@contextmanager
def api_server() -> Iterator[None]:
    """Have a server for as long as the block lasts: the one that is named, or one that ends with it.

    Raises:
        AttuneError: if the one that is named does not answer, or the other does not start.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    if url := get_current_settings().api.url:
        if not answers(str(url)):
            fix = "start it (make services), or unset PREFECT_API_URL: then a server is started for this run"
            raise AttuneError(f"no Prefect server answers at {redacted(str(url))}, which PREFECT_API_URL names", fix)
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # setpriv: it ends with this process, however that ends; it is in no terminal's process group
    tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    print("starting a Prefect server for this run (`make services` starts one that stays)", flush=True)
    process = subprocess.Popen(
        [*tied, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _await(process, port)
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            try:
                yield
            finally:  # what is on its way gets there; sent at exit, it would be tried for a minute and more
                for worker in (APILogWorker, EventsWorker):
                    worker.drain_all(timeout=DRAIN_SECONDS)
    finally:
        process.kill()  # it has told all it knows; asked kindly, it waits for connections to be closed
        end_group(process)


def answers(url: str) -> bool:
    """Return whether a server answers at `url`/health; no proxy stands between a machine and itself."""
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost")
    opener = build_opener(ProxyHandler({})) if local else build_opener()
    try:
        opener.open(f"{url.rstrip('/')}/health", timeout=REACH_SECONDS).close()
    except HTTPError:
        pass  # an answer of whatever kind is one
    except (OSError, ValueError, HTTPException):
        return False
    return True


def _await(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if answers(f"http://127.0.0.1:{port}/api"):
            return
        time.sleep(0.2)
    raise AttuneError("the Prefect server for this run does not start", "see why: prefect server start")
